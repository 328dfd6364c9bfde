"""The counters of live mounts as Prometheus text, for `overlayd status --metrics`.

One scrape is one run of the command (the textfile collector of node_exporter, or any exec probe);
nothing listens anywhere. Only this module loads prometheus_client, and only that command loads it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from overlayd.service.survey import Seen, State
from overlayd.table.guest_path import printable

Family = CounterMetricFamily | GaugeMetricFamily

_GAUGES = (
    ("start_time_seconds", "started", "When the daemon began to serve, as Unix time."),
    ("resident_memory_bytes", "memory_bytes", "Memory the daemon uses."),
    ("inodes", "inodes", "Inodes the kernel knows by number."),
    ("open_handles", "handles", "Files and directories that guests hold open."),
    ("cached_descriptors", "descriptors", "Host descriptors kept open to be used again."),
)
_BY_NAME = (
    ("requests", "operations", "operation", "Requests answered, by FUSE operation."),
    ("request_errors", "errors", "errno", "Requests answered with an error, by errno."),
    ("denials", "denials", "reason", "Changes denied because something is read-only, by reason."),
)
_BY_PREOPEN = (
    ("preopen_requests", "operations", "Requests that concerned the preopen."),
    ("preopen_read_bytes", "bytes_read", "Bytes read through the preopen."),
    ("preopen_written_bytes", "bytes_written", "Bytes written through the preopen."),
    ("preopen_denials", "denials", "Changes denied in the preopen."),
)


def exposition(seen: Sequence[Seen]) -> str:
    """The metrics of *seen* in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Mounts(seen))
    return generate_latest(registry).decode()


class _Mounts(Collector):
    def __init__(self, seen: Sequence[Seen]) -> None:
        self._seen = seen
        self._live = [
            (printable(one.record.target), one.status) for one in seen if one.status is not None
        ]

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "overlayd_up", "Whether the daemon of the mount answers.", labels=["target"]
        )
        for one in self._seen:
            up.add_metric([printable(one.record.target)], float(one.state is State.LIVE))
        yield up
        yield self._information()
        yield from self._passthrough()
        yield from self._whole_mounts()
        yield from self._by_name()
        yield from self._by_preopen()

    def _information(self) -> Metric:
        family = InfoMetricFamily("overlayd_mount", "The mount's settings.", labels=["target"])
        for target, status in self._live:
            settings = status["settings"]
            words = {name: str(settings[name]) for name in ("cache", "alias", "symlinks", "errors")}
            family.add_metric([target], {"version": status["version"], **words})
        return family

    def _passthrough(self) -> Iterator[Metric]:
        labels = ["target"]
        on = GaugeMetricFamily(
            "overlayd_passthrough", "Whether data may pass the daemon by.", labels=labels
        )
        files = GaugeMetricFamily(
            "overlayd_passthrough_files", "Files open past the daemon.", labels=labels
        )
        opened = CounterMetricFamily(
            "overlayd_passthrough_handles", "Handles given out past the daemon.", labels=labels
        )
        refused = CounterMetricFamily(
            "overlayd_passthrough_refused",
            "Files that the kernel did not take, by errno.",
            labels=["target", "errno"],
        )
        for target, status in self._live:
            said = status["passthrough"]
            on.add_metric([target], float(said["on"]))
            files.add_metric([target], said["files"])
            opened.add_metric([target], said["opened"])
            for errno, count in said["refused"].items():
                refused.add_metric([target, errno], count)
        yield from (on, files, opened, refused)

    def _whole_mounts(self) -> Iterator[Metric]:
        for name, key, words in _GAUGES:
            gauge = GaugeMetricFamily(f"overlayd_{name}", words, labels=["target"])
            for target, status in self._live:
                gauge.add_metric([target], status[key])
            yield gauge
        lost = CounterMetricFamily(
            "overlayd_log_lines_lost", "Log lines that could not be written.", labels=["target"]
        )
        for target, status in self._live:
            lost.add_metric([target], status["log_lines_lost"])
        yield lost

    def _by_name(self) -> Iterator[Metric]:
        for name, key, label, words in _BY_NAME:
            family = CounterMetricFamily(f"overlayd_{name}", words, labels=["target", label])
            for target, status in self._live:
                for which, count in status[key].items():
                    family.add_metric([target, which], count)
            yield family

    def _by_preopen(self) -> Iterator[Metric]:
        labels = ["target", "guest", "mode"]
        for name, key, words in _BY_PREOPEN:
            yield self._filled(CounterMetricFamily(f"overlayd_{name}", words, labels=labels), key)
        name, words = "overlayd_preopen_open_handles", "Handles open in the preopen."
        yield self._filled(GaugeMetricFamily(name, words, labels=labels), "handles")

    def _filled(self, family: Family, key: str) -> Metric:
        for target, status in self._live:
            for preopen in status["preopens"]:
                labels = [target, preopen["guest"], preopen["mode"]]
                family.add_metric(labels, _number(preopen, key))
        return family


def _number(preopen: dict[str, Any], key: str) -> float:
    return float(preopen[key])

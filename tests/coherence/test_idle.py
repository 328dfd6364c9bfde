"""A daemon that nobody asks does nothing, and a busy host makes it do no more than it must."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from aliases.private_mounts import in_private_mounts
from coherence.counted import PAUSE, counted
from support.live import daemon_of
from support.mounting import mounted
from support.planting import plant
from support.processes import in_child, ticks_of, wait_until

pytestmark = [pytest.mark.usefixtures("data_way"), pytest.mark.alone]

ENTRIES = tuple(f"dir{number}/file=content" for number in range(20))


class Work(NamedTuple):
    """What a process has done so far."""

    ticks: int
    switches: int
    """How often one of its threads was woken or interrupted."""


def work(pid: int) -> Work:
    """As the kernel has it."""
    switches = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        lines = [line.split() for line in status.read_text().splitlines()]
        switches += sum(int(line[1]) for line in lines if "ctxt_switches" in line[0])
    return Work(ticks_of(pid), switches)


def is_quiet(pid: int) -> bool:
    """Whether the process has done what there was to do."""
    before = work(pid)
    time.sleep(PAUSE)
    return work(pid) == before


def held(pid: int) -> tuple[int, int, int]:
    """Resident KiB, descriptors, threads."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    descriptors = len(os.listdir(f"/proc/{pid}/fd"))
    return int(status["VmRSS"].split()[0]), descriptors, int(status["Threads"])


def know_everything(top: Path) -> None:
    """Walk and read, so that there is much to keep and to watch."""
    for place, _, files in os.walk(top):
        for name in files:
            Path(place, name).read_bytes()
            os.stat(Path(place, name))


def test_a_warm_daemon_does_nothing_for_two_seconds(tmp_path: Path) -> None:
    """Among mounts of its own, because others that come and go on the machine wake a daemon."""
    in_private_mounts(lambda: _two_idle_seconds(tmp_path), bare=True)


def _two_idle_seconds(tmp_path: Path) -> None:
    source = plant(tmp_path / "source", *ENTRIES)
    with (
        mounted(tmp_path, f"{source}::/") as coherent,
        mounted(tmp_path, f"{source}::/", options=["--cache", "none"]) as uncached,
    ):
        for top in (coherent, uncached):
            in_child(know_everything, top)
        daemons = [daemon_of(top) for top in (coherent, uncached)]
        assert wait_until(lambda: all(map(is_quiet, daemons)))
        before = [work(pid) for pid in daemons]
        time.sleep(2)
        assert [work(pid) for pid in daemons] == before


WRITES = 10_000
MORE_KIB = 4096
"""An event kept for each write would take more."""


def test_a_log_that_grows_costs_nothing_of_what_is_beside_it(tmp_path: Path) -> None:
    """Ten thousand writes in a watched directory, while a guest looks at another file in it."""
    source = plant(tmp_path / "source", *ENTRIES, "log=", "beside=beside")

    def storm() -> None:
        log = os.open(source / "log", os.O_WRONLY | os.O_APPEND)
        for _ in range(WRITES):
            os.write(log, b"one more line\n")
            assert os.stat(mount.top / "beside").st_size == len("beside")
        os.close(log)

    with counted(tmp_path, f"{source}::/") as mount:
        pid = daemon_of(mount.top)
        for _ in range(2):  # the first answers may be short-lived: nothing was watched before
            in_child(know_everything, mount.top)
            time.sleep(PAUSE)
        before, (memory, *others) = work(pid), held(pid)
        requests = mount.of(storm)
        size = WRITES * len("one more line\n")
        assert in_child(wait_until, lambda: os.stat(mount.top / "log").st_size == size, 2)
        spent = work(pid).ticks - before.ticks
        memory_after, *others_after = held(pid)
    print(f"{WRITES} writes: {spent} ticks of the daemon, {dict(requests)}")
    assert not requests
    assert others_after == others
    assert memory_after - memory < MORE_KIB

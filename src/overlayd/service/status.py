"""What a running daemon tells about itself: the verb `status`, as data with stable keys."""

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import trio

from overlayd import __version__
from overlayd.core.overlay import Overlay
from overlayd.kernel import wire
from overlayd.kernel.counters import Tally
from overlayd.kernel.operations import Operations
from overlayd.service.logs import lost_lines
from overlayd.service.plan import MountPlan
from overlayd.table.guest_path import printable, show
from overlayd.table.preopen import Preopen

ASKED_EACH_TIME = "asked each time"
_PAGE = os.sysconf("SC_PAGE_SIZE")


class _Attached(NamedTuple):
    """One preopen as it is attached now."""

    preopen: Preopen
    host: str
    """Where its source lies now, as the kernel knows without asking anybody."""
    tally: Tally
    overlaps: bool
    slow: bool


class Status:
    """Answers the verb `status` for one mount."""

    def __init__(
        self, plan: Callable[[], MountPlan], overlay: Overlay, operations: Operations, device: int
    ) -> None:
        """*plan* is what is in force at the moment."""
        self._plan = plan
        self._overlay = overlay
        self._operations = operations
        self._counters = operations.counters
        self._device = device
        self._began = time.time()
        self._clock = time.monotonic()

    async def verb(self, request: Mapping[str, Any]) -> object:
        """The answer. It is put together where it is asked for: it reads only what is counted."""
        await trio.lowlevel.checkpoint()
        return self.as_json()

    def as_json(self) -> dict[str, Any]:
        """Everything, for programs."""
        wire.note_moves()
        space, counters = self._overlay.namespace, self._counters
        return {
            "target": printable(self._plan().target),
            "device": self._device,
            "pid": os.getpid(),
            "version": __version__,
            "started": round(self._began, 3),
            "uptime_seconds": round(time.monotonic() - self._clock, 3),
            "settings": self._settings(),
            "memory_bytes": _resident(),
            "inodes": len(space.nodes),
            "handles": len(space.handles),
            "descriptors": len(space.cache),
            "wire": str(wire.state()),
            "passthrough": self._passthrough(),
            "operations": dict(sorted(counters.operations.items())),
            "errors": _by_name(counters.errors),
            "denials": dict(sorted(self._overlay.access.denials.by_kind.items())),
            "log_lines_lost": lost_lines(),
            "preopens": [self._preopen(attached) for attached in self._attached()],
        }

    def _passthrough(self) -> dict[str, Any]:
        """Which way the data of open files goes."""
        passthrough, ways = self._operations.passthrough, self._overlay.data.ways
        return {
            "on": not passthrough.obstacle,
            "obstacle": passthrough.obstacle,
            "files": ways.backings,
            "opened": ways.opened,
            "refused": _by_name(passthrough.refused),
        }

    def _settings(self) -> dict[str, Any]:
        plan = self._plan()
        return {
            "cache": str(plan.cache),
            "alias": plan.alias,
            "symlinks": self._overlay.namespace.rules.symlinks,
            "errors": plan.errors,
            "passthrough": plan.passthrough,
            "allow_other": plan.allow_other,
            "log_level": plan.log_level,
        }

    def _preopen(self, attached: _Attached) -> dict[str, Any]:
        preopen, tally = attached.preopen, attached.tally
        return {
            "guest": show(preopen.guest),
            "host": attached.host,
            "mode": preopen.options,
            "operations": tally.operations,
            "bytes_read": tally.bytes_read,
            "bytes_written": tally.bytes_written,
            "handles": tally.handles,
            "denials": self._overlay.access.denials.by_preopen[str(preopen)],
            "cache": self._kept(attached),
        }

    def _kept(self, attached: _Attached) -> str:
        """How long the kernel may keep what it is told of a preopen."""
        policy = self._plan().cache
        if attached.overlaps or (attached.slow and not policy.slow_seconds):
            return ASKED_EACH_TIME
        return f"{policy.slow_seconds:g} s" if attached.slow else str(policy)

    def _attached(self) -> Iterator[_Attached]:
        """What is attached, in the order of the table: the one place that knows what by."""
        space = self._overlay.namespace
        for mount in space.assembly.attachments:
            host = printable(mount.source.present_host())
            slow = space.is_slow(mount.stat)
            yield _Attached(mount.preopen, host, self._counters.of(mount), mount.overlaps, slow)


def _by_name(errors: Mapping[int, int]) -> dict[str, int]:
    return {errno.errorcode.get(number, str(number)): errors[number] for number in sorted(errors)}


def _resident() -> int:
    """Bytes of memory in use (statm, proc(5)); 0 where that cannot be told."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0

"""What is known of each host file system, by device number.

A device number is given to another file system once the one that had it is unmounted; so what was
found out holds until the mount table changes, or for ever where a source keeps the file system.
"""

import threading
from collections.abc import Iterable

from overlayd.host import fs
from overlayd.host.mounts import FILE_SYSTEM_TYPE, Mount, MountWatch, read_mounts

_IN_MEMORY = frozenset(("ramfs", "tmpfs"))


class Devices:
    """Which file systems may block, are overlayd's own, or have no lasting creation times."""

    def __init__(self) -> None:
        self.blocking: set[int] = set()
        self.in_memory: set[int] = set()
        """Those that hold their files in memory: reading them never waits for a device."""
        self._held: frozenset[int] = frozenset()
        self.plain: frozenset[int] = frozenset()
        """Those of sources, of which what they say of their objects is simply true.

        One is not among them before that was found out; for sources it does not change.
        """
        self._own: int | None = None
        self._overlays: set[int] = set()
        self._no_birth: set[int] = set()
        self._seen: set[int] = set()
        self._watch = MountWatch()
        self._lock = threading.Lock()

    def hold(self, devices: Iterable[int]) -> None:
        """*devices* are those of the sources from now on."""
        self._held = frozenset(devices)
        self._sort_out()

    @property
    def own(self) -> int | None:
        """The mount's own, once it exists."""
        return self._own

    @own.setter
    def own(self, device: int | None) -> None:
        self._own = device
        self._sort_out()

    def may_block(self, status: fs.HostStat) -> bool:
        """Whether the file system of *status* may keep a caller waiting."""
        if status.dev not in self._held or status.dev not in self._seen:
            with self._lock:
                if self._watch.has_changed():
                    self._seen &= self._held
                if status.dev not in self._seen:
                    self._classify(status)
        return status.dev in self.blocking

    def is_found_overlay(self, status: fs.HostStat) -> bool:
        """Whether *status* is of an overlayd mount that was met inside a source.

        Its daemon may be waiting for this one, if that in turn meets ours: nothing is asked of it.
        A source that itself lies on such a mount is no such case; that mount is the older one.
        """
        return status.dev in self._overlays and status.dev not in self._held

    def trim(self, status: fs.HostStat) -> fs.HostStat:
        """*status* without a creation time that changes under a living inode."""
        return status._replace(birth_ns=0) if status.dev in self._no_birth else status

    def _classify(self, status: fs.HostStat) -> None:
        # By mount id: on btrfs and overlayfs the device number is not the one in mountinfo.
        mount = next((m for m in read_mounts() if m.mount_id == status.mount_id), None)
        is_overlay = mount is not None and mount.fs_type == FILE_SYSTEM_TYPE
        _note(self.blocking, status.dev, mount is not None and mount.may_block)
        _note(self.in_memory, status.dev, mount is not None and mount.fs_type in _IN_MEMORY)
        _note(self._overlays, status.dev, is_overlay)
        _note(self._no_birth, status.dev, _copies_up(mount))
        self._seen.add(status.dev)
        self._sort_out()

    def _sort_out(self) -> None:
        self.plain = (self._held & self._seen) - self.blocking - self._no_birth - {self._own}


def _copies_up(mount: Mount | None) -> bool:
    """Whether writing to a file gives it a new inode below."""
    return mount is not None and mount.fs_type == "overlay"


def _note(devices: set[int], device: int, belongs: bool) -> None:
    if belongs:
        devices.add(device)
    else:
        devices.discard(device)

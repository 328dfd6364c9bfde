"""Whether a directory lies below any of many others, told by walking up from it.

Where each of the others lies need not be asked for that: a directory above is known by device and
inode number, whatever it is called by now and wherever it was moved. One walk costs as much for a
thousand of them as for one.

The way up from a mount leads on to what it is mounted on. What it does not show is what the file
system has above the directory that is mounted; from where that matters, nothing is told.
"""

import errno
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass

from overlayd.host import fs
from overlayd.host.mounts import (
    LOCAL_TYPES,
    Components,
    Mount,
    MountSnapshot,
    components_below,
    split,
)

Identity = tuple[int, int]
"""(dev, ino) of a host object."""

_STEPS = 1024
"""Higher up is not looked: the path of that many `..` nears PATH_MAX."""

_UP = b"../" * _STEPS
"""Its beginnings lead up; one text, since all of them together take more than a megabyte."""


def identities_above(directory: fs.Fd, steps: int) -> Iterator[Identity]:
    """(dev, ino) of *directory* and of the *steps* directories above it, the nearest first.

    Follows no name and no link. Must not be used where a file system on the way may block: all of
    a `Slope` are local. Raises OSError where one may not be passed, or for too many steps.
    """
    number = directory.number
    status = os.fstat(number)
    yield status.st_dev, status.st_ino
    if steps >= _STEPS:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
    for step in range(1, steps + 1):
        status = os.stat(_UP[: 3 * step - 1], dir_fd=number)
        yield status.st_dev, status.st_ino


@dataclass(frozen=True, slots=True)
class Slope:
    """What is to be known before walking up from anywhere in one mount."""

    mounted_elsewhere: Container[Identity]
    """The roots of the file system's other mounts: what is at or below one has another place."""
    is_lasting: bool
    """Whether this holds until something is mounted or unmounted; else until a directory moves."""


class Slopes:
    """From which mounts one can walk up, as of one look at the table of mounts."""

    def __init__(self, mounts: MountSnapshot) -> None:
        self._mounts = mounts
        self._known: dict[int, Slope | None] = {}
        self._by_device: dict[int, list[Mount]] = {}
        self._foreign_points: set[Components] = set()
        for mount in mounts.by_id.values():
            self._by_device.setdefault(mount.dev, []).append(mount)
            if mount.fs_type not in LOCAL_TYPES:
                self._foreign_points.add(split(mount.mount_point))

    def of(self, mount_id: int) -> Slope | None:
        """The way up from the mount with *mount_id*; None where it shows too little, or may block.

        Looks at the roots of mounts on local file systems when it is first asked.
        """
        if mount_id not in self._known:
            self._known[mount_id] = self._find(mount_id)
        return self._known[mount_id]

    def _find(self, mount_id: int) -> Slope | None:
        mount = self._mounts.by_id.get(mount_id)
        if mount is None or not self._is_local_throughout(mount):
            return None
        others = [other for other in self._by_device[mount.dev] if other is not mount]
        roots = set()
        for other in others:
            if components_below(mount.root, other.root):  # what is above us there has two places
                return None
            identity = self._root_of(other)
            if identity is None:
                return None
            roots.add(identity)
        return Slope(frozenset(roots), is_lasting=not others or mount.root == b"/")

    def _is_local_throughout(self, mount: Mount) -> bool:
        """Whether *mount*, and all mounts on the way to it, never block and number truly."""
        point = split(mount.mount_point)
        return not any(point[:depth] in self._foreign_points for depth in range(len(point) + 1))

    def _root_of(self, mount: Mount) -> Identity | None:
        """(dev, ino) of the directory or file that *mount* shows, None where it is not seen."""
        if not self._is_local_throughout(mount):
            return None
        try:
            status = fs.stat_fd(fs.open_ambient(os.fsdecode(mount.mount_point)))
        except OSError:
            return None
        return (status.dev, status.ino) if status.mount_id == mount.mount_id else None

"""Where sources lie: by file system and path inside it, bind mounts seen through."""

import os
from collections.abc import Iterator, Sequence

from overlayd.host import fs
from overlayd.host.mounts import Components, Mount, MountSnapshot, read_mounts, split
from overlayd.host.sources import Source
from overlayd.table.aliases import Location, Part, branch_at
from overlayd.table.guest_path import GuestPath
from overlayd.table.mount_tree import MountTable


class Locator:
    """The locations of all sources at one moment."""

    def __init__(
        self,
        table: MountTable,
        sources: Sequence[Source],
        own_device: int | None = None,
        mounts: MountSnapshot | None = None,
    ) -> None:
        """Locate every source; *own_device* is overlayd's own mount, *mounts* if already read."""
        self._mounts = mounts or MountSnapshot(read_mounts())
        self._own_device = own_device
        self.parts = tuple(
            part
            for index, source in enumerate(sources)
            for part in self._parts(table, index, source)
        )

    def locate(self, path: bytes, mount_id: int) -> Location | None:
        """The location of what the kernel says is at *path*, None where it cannot be told."""
        found = self._mounts.locate(path, mount_id)
        return None if found is None else Location(found[0].dev, found[1])

    def superblock(self, mount_id: int) -> int | None:
        """The file system that the mount with *mount_id* shows."""
        mount = self._mounts.by_id.get(mount_id)
        return None if mount is None else mount.dev

    def _parts(self, table: MountTable, index: int, source: Source) -> Iterator[Part]:
        path = fs.present_path(source.fd)
        location = self.locate(path, source.stat.mount_id)
        guest = source.preopen.guest
        below = [
            (mount, rest)
            for mount, rest in self._mounts.below(path)
            if mount.dev != self._own_device
        ]
        if location is not None:
            yield Part(
                preopen=index,
                location=location,
                guest=guest,
                branch=branch_at(table, guest),
                covered=frozenset(rest for _, rest in below),
                file=None if source.stat.is_dir else (source.stat.dev, source.stat.ino),
            )
        for mount, rest in below:
            yield from self._mounted_part(table, index, guest, mount, rest, below)

    def _mounted_part(
        self,
        table: MountTable,
        index: int,
        guest: GuestPath,
        mount: Mount,
        rest: Components,
        below: list[tuple[Mount, Components]],
    ) -> Iterator[Part]:
        """The part that a host mount below a source adds, unless the table masks its place."""
        at = guest + rest
        for depth in range(len(guest) + 1, len(at) + 1):
            branch = branch_at(table, at[:depth])
            if branch is not None and branch.mount is not None:
                return
        deeper = (r[len(rest) :] for _, r in below if len(r) > len(rest) and r[: len(rest)] == rest)
        yield Part(
            preopen=index,
            location=Location(mount.dev, split(mount.root)),
            guest=at,
            branch=branch_at(table, at),
            covered=frozenset(deeper),
            file=_file_identity(mount),
        )


def _file_identity(mount: Mount) -> tuple[int, int] | None:
    """(dev, ino) where a host mount shows a single file, as container runtimes bind them."""
    try:
        status = fs.stat_fd(fs.open_ambient(os.fsdecode(mount.mount_point)))
    except OSError:
        return None
    return None if status.is_dir else (status.dev, status.ino)

"""What the namespace shows read-only, under whatever name it is reached.

Read-only belongs to the host inode (SPEC.md section 4). A directory is judged by where it lies on
the host at this moment, as the kernel tells for an opened descriptor, against the parts of the
read-only sources that the namespace really shows. A file is judged likewise by the name it was
opened by and, unless that is the only one it has, by the index of what is shown (`host.links`).

Nothing here rests on an earlier lookup or a cache that time makes valid: a judgement is kept only
together with the path the kernel gave for it and with the places of sources and mounts, and made
again when any of these has changed.
"""

import errno
import os
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from overlayd.core.assembly import Assembly
from overlayd.core.namespace import Namespace
from overlayd.core.nodes import Judgement, Node
from overlayd.core.types import INDEX
from overlayd.host import fs
from overlayd.host.links import LinkIndex, ShownTree
from overlayd.host.locations import Locator
from overlayd.host.mounts import MountSnapshot, MountWatch, parse_mounts
from overlayd.host.sources import Source
from overlayd.table.aliases import (
    Location,
    Part,
    PartIndex,
    branch_at,
)
from overlayd.table.guest_path import GuestPath, show

_UNKNOWN_PLACE = "where it lies on the host cannot be told"
_DELETED = b" (deleted)"

_LIST_TRULY = frozenset(
    ("bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "ramfs", "tmpfs", "xfs")
)
"""File systems whose listings call a file by the inode number that stat(2) gives. On overlayfs and
FUSE they may not; whatever is not known to do so is asked file by file."""


class _Basis(NamedTuple):
    """What every judgement rests on, next to the place of what is judged."""

    own_device: int | None
    assembly: Assembly
    paths: tuple[bytes, ...]
    """Where the read-only sources lie."""
    mounts: bytes
    """The table of mounts."""


class _Shown:
    """What is shown read-only, as of one look at the host."""

    def __init__(self, locator: Locator, parts: Sequence[Part], sources: Sequence[Source]) -> None:
        self.locator = locator
        located = {part.preopen for part in parts}
        self.lost = {
            source.stat.dev: source.preopen.guest
            for index, source in enumerate(sources)
            if source.preopen.read_only and index not in located
        }
        """Sources that a lazy unmount took out of sight, by file system: all of it is refused."""
        self.superblocks = frozenset(part.location.superblock for part in parts) | self.lost.keys()
        self.files = {part.file: part.guest for part in parts if part.file is not None}
        self._index = PartIndex(parts)

    def why(self, location: Location) -> str | None:
        """Why nothing at *location* may change; None if it may."""
        shown = (part.shows(location) for part in self._index.around(location))
        guest = next((guest for guest in shown if guest is not None), None)
        if guest is not None:
            return _shown_at(guest)
        lost = self.lost.get(location.superblock)
        return None if lost is None else f"where {show(lost)} lies on the host cannot be told"


class Aliasing:
    """Judges inodes that are reached through writable preopens."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._lock = threading.Lock()
        self._watch = MountWatch()
        self._generation = 0
        self._basis: _Basis | None = None
        self._mounts_are_old = True

    # -- judging --------------------------------------------------------------------------------

    def directory(self, node: Node, fd: fs.Fd) -> str | None:
        """Why nothing in the directory *fd*, known as *node*, may change; None if it may."""
        if not self._namespace.assembly.read_only:
            return None
        judged: int | None = None
        while True:  # not by recursion: directories nest deeper than Python's stack
            mount_id = node.key.host_mount if node.key is not None else 0
            if mount_id != judged and not self._concerns(mount_id):
                return None
            judged = mount_id
            try:
                path = fs.present_path(fd)
            except OSError as error:
                above = node.parent
                if error.errno != errno.ENAMETOOLONG or above is None:
                    return _UNKNOWN_PLACE
                node, fd = above, self._namespace.open_path(above)
            else:
                return self._judge_place(node, path, mount_id)

    def file(self, node: Node, fd: fs.Fd, status: fs.HostStat) -> str | None:
        """Why the inode *fd*, known as *node*, may not change; None if it may.

        *status* must have been asked of *fd*, after it was opened. May walk what is shown
        read-only: raises WouldBlock where this thread may not wait.
        """
        if not self._namespace.assembly.read_only or not self._concerns(status.mount_id):
            return None
        shown = self._shown.files.get((status.dev, status.ino))
        if shown is not None:
            return _shown_at(shown)
        if status.nlink == 0:
            return None
        path = self._lasting_path(node, fd)
        if path is not None:
            reason = self._judge_place(node, path, status.mount_id)
            if reason is not None or status.nlink == 1:
                return reason
        return self._judge_links(fd, status)

    def _lasting_path(self, node: Node, fd: fs.Fd) -> bytes | None:
        """Where the name by which *fd* was opened is now; None where it is gone, or may be.

        Removing a name first lowers the link count and tells of it last, so that for a moment a
        file with one link seems to have the name that has just been lost. Whoever removes it holds
        the directory's lock throughout: once we had that, what the kernel says of the name is true.
        """
        try:
            path = fs.present_path(fd)
            directory = self._directory_of(node)
            above, _, name = path.rpartition(b"/")
            if directory is None or fs.present_path(directory).rstrip(b"/") != above:
                return None
            lasts = fs.await_names(directory, name) and fs.present_path(fd) == path
        except OSError:
            return None
        return path if lasts and not path.endswith(_DELETED) else None

    def _directory_of(self, node: Node) -> fs.Fd | None:
        """The host directory in which *node* was last seen."""
        if node.parent is None:
            return None
        where = self._namespace.where(node.parent)
        at = where.position.children.get(node.name) if where.position is not None else None
        if at is not None and at.mount is not None:  # a file attached by itself
            path = fs.present_path(at.mount.fd)
            return fs.open_ambient(os.path.dirname(os.fsdecode(path)))
        return where.fd

    def _judge_links(self, fd: fs.Fd, status: fs.HostStat) -> str | None:
        self._namespace.consent_to_wait(INDEX)
        try:
            held = self._index.holds(status.dev, status.ino, self._has_stayed(fd, status))
        except OSError as error:
            return f"whether a hard link of it is shown read-only cannot be told: {error.strerror}"
        return "another hard link of the same file is shown read-only" if held else None

    def _has_stayed(self, fd: fs.Fd, status: fs.HostStat) -> Callable[[], bool]:
        """Tells whether *fd* kept its names since *status*, or since it was last asked."""

        def ask() -> bool:
            nonlocal status
            before, status = status, self._namespace.status(fd)
            return (before.ctime_ns, before.nlink) == (status.ctime_ns, status.nlink)

        return ask

    def _judge_place(self, node: Node, path: bytes, mount_id: int) -> str | None:
        known = node.judgement
        if known is not None and (known.generation, known.path) == (self._generation, path):
            return known.reason
        generation, shown = self._generation, self._shown
        location = shown.locator.locate(path, mount_id)
        reason = _UNKNOWN_PLACE if location is None else shown.why(location)
        node.judgement = Judgement(generation, path, reason)
        return reason

    def _concerns(self, mount_id: int) -> bool:
        """Whether anything on the file system of *mount_id* is shown read-only, or nobody knows."""
        self.refresh()
        superblock = self._shown.locator.superblock(mount_id)
        return superblock is None or superblock in self._shown.superblocks

    # -- keeping up with the host ---------------------------------------------------------------

    def refresh(self) -> None:
        """Look at the host again if anything that judgements rest on has changed."""
        with self._lock:
            basis = self._look_at_basis()
            if basis == self._basis:
                self._mounts_are_old = False
                return
            self._mounts = MountSnapshot(parse_mounts(basis.mounts))
            self._look_at_host(basis)
            self._renew_index(basis)
            self._generation, self._basis = self._generation + 1, basis
            self._mounts_are_old = False

    def _look_at_basis(self) -> _Basis:
        old = self._basis
        self._mounts_are_old |= self._watch.has_changed()
        # A mount point that moves with the directory above it is announced by nobody. That matters
        # where a file system is mounted twice: what is mounted once then has no place that fits,
        # and is refused.
        if old is None or self._mounts_are_old or self._has_binds:
            mounts = self._watch.text()
        else:
            mounts = old.mounts
        assembly = self._namespace.assembly
        paths = tuple(fs.present_path(source.fd) for source in assembly.read_only)
        return _Basis(self._namespace.own_device, assembly, paths, mounts)

    def _look_at_host(self, basis: _Basis) -> None:
        table, sources = basis.assembly.table, basis.assembly.sources
        locator = Locator(table, sources, basis.own_device, self._mounts)
        shown = [part for part in locator.parts if table.preopens[part.preopen].read_only]
        self._shown = _Shown(locator, shown, sources)
        self._has_binds = self._mounts.has_binds()

    def _renew_index(self, basis: _Basis) -> None:
        """Begin a new index for another table or own mount; it follows all else by itself."""
        old = self._basis
        if old is not None and old[:2] == basis[:2]:
            return
        table = basis.assembly.table
        shown = [source for source in basis.assembly.read_only if source.stat.is_dir]
        trees = [ShownTree(s.fd, branch_at(table, s.preopen.guest)) for s in shown]
        self._index = LinkIndex(trees, basis.own_device, self._namespace.is_slow, self._lists_truly)

    def _lists_truly(self, status: fs.HostStat) -> bool:
        mount = self._mounts.by_id.get(status.mount_id)
        return mount is not None and mount.fs_type in _LIST_TRULY


def _shown_at(guest: GuestPath) -> str:
    return f"it is shown read-only at {show(guest)}"

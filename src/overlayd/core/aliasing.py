"""What the namespace shows read-only, under whatever name it is reached.

Read-only belongs to the host inode (SPEC.md section 4). A directory is judged by where it lies on
the host at this moment, as the kernel tells for an opened descriptor, against the parts of the
read-only sources that the namespace really shows. A file is judged likewise by the name it was
opened by and, unless that is the only one it has, by the index of what is shown (`host.links`).

That takes a question for each read-only source. Most changes are made where there is none at all,
and that is seen by walking up from what is judged (`host.ancestry`): a question for each directory
above, however many sources there are. Where the walk does not tell, all places are compared.

Nothing here rests on an earlier lookup or a cache that time makes valid: a judgement is kept only
together with the path the kernel gave for it and with the places of sources and mounts, and made
again when any of these has changed.
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from overlayd.core.assembly import Assembly
from overlayd.core.namespace import Namespace
from overlayd.core.nodes import Judgement, Node
from overlayd.core.types import INDEX
from overlayd.host import fs
from overlayd.host.ancestry import Identity, Slope, Slopes, identities_above
from overlayd.host.links import LinkIndex, ShownTree
from overlayd.host.locations import Locator
from overlayd.host.mounts import LOCAL_TYPES, MountSnapshot, MountWatch, parse_mounts, split
from overlayd.host.sources import Source
from overlayd.table.aliases import (
    Location,
    Part,
    PartIndex,
    branch_at,
    is_masked,
)
from overlayd.table.guest_path import GuestPath, show
from overlayd.table.mount_tree import Branch

_UNKNOWN_PLACE = "where it lies on the host cannot be told"
_RESTLESS = "it is being moved all the time"
_DELETED = b" (deleted)"

_SECOND_NS = 1_000_000_000
_COARSE_NS = 2 * _SECOND_NS
_FINE_NS = 50_000_000
"""How long ago a change must be for the next one to have another time: longer than the clock tick
of any kernel, and than a second where the file system keeps no fractions."""

_ATTEMPTS = 16
_BINDS_COST = 12
"""What reading the table of mounts costs, in readings of where one source lies."""


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


class _Clearance:
    """Tells that an object surely lies in nothing that is shown read-only, by walking up from it.

    What it does not tell may be so or not; who asks goes on to look where everything lies. That
    takes a question for each read-only source, and this takes one for each directory above.
    """

    def __init__(self, assembly: Assembly, text: bytes, changes: int) -> None:
        """*text* is the table of mounts, after *changes* of it."""
        mounts = MountSnapshot(parse_mounts(text))
        self.assembly = assembly
        self.text = text
        self.changes = changes
        self._slopes = Slopes(mounts)
        self._shown: dict[Identity, list[Branch | None]] = {}
        for source in assembly.read_only:
            branch = branch_at(assembly.table, source.preopen.guest)
            self._shown.setdefault((source.stat.dev, source.stat.ino), []).append(branch)
        # Of what a lazy unmount took out of sight nobody knows what is above or below it.
        self._is_blind = any(s.stat.mount_id not in mounts.by_id for s in assembly.read_only)
        self._costs_otherwise = len(assembly.read_only) + (_BINDS_COST if mounts.has_binds() else 0)
        self.may_pay = self._costs_otherwise > 1
        """Whether a walk can ever be worth it: not for a single source."""

    def is_worth_it(self, path: bytes) -> bool:
        """Whether walking up from *path* costs less than looking where every source lies."""
        # A step costs half as much as a source does, and a fiftieth more for each `..` before it.
        steps = path.count(b"/")
        return steps * (steps + 50) / 100 < self._costs_otherwise

    def slope(self, mount_id: int) -> Slope | None:
        """The way up from the mount with *mount_id*; None where nothing can be told."""
        return None if self._is_blind else self._slopes.of(mount_id)

    def still_holds(self, slope: Slope, watch: MountWatch) -> bool:
        """Whether no mount was moved along with a directory, where that would matter."""
        return slope.is_lasting or watch.text() == self.text

    def is_attached(self, identity: Identity, slope: Slope) -> bool:
        """Whether the inode is itself a read-only source, or mounted somewhere."""
        return identity in self._shown or identity in slope.mounted_elsewhere

    def clears(self, directory: fs.Fd, path: bytes, slope: Slope, name: bytes = b"") -> bool:
        """Whether *directory*, which is at *path*, or *name* in it, is surely nowhere read-only.

        Raises OSError where a directory on the way may not be passed.
        """
        names = split(path)
        depth = len(names)
        if name:
            names = (*names, name)
        for height, identity in enumerate(identities_above(directory, depth)):
            if identity in slope.mounted_elsewhere:
                return False
            shown = self._shown.get(identity)
            below = names[depth - height :]
            if shown is not None and not all(is_masked(branch, below) for branch in shown):
                return False
        return True


class Aliasing:
    """Judges inodes that are reached through writable preopens."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._lock = threading.Lock()
        self._watch = MountWatch()
        self._generation = 0
        self._basis: _Basis | None = None
        self._clearance: _Clearance | None = None
        self._changes = 0
        """How often something was seen to have been mounted or unmounted."""
        self._changes_read = 0
        """The same when the table of mounts was last read for `_basis`."""

    # -- judging --------------------------------------------------------------------------------

    def directory(self, node: Node, fd: fs.Fd) -> str | None:
        """Why nothing in the directory *fd*, known as *node*, may change; None if it may."""
        if not self._namespace.assembly.read_only:
            return None
        mount_id = node.key.host_mount if node.key is not None else 0
        path = _path(fd)
        if path is not None and self._clears_directory(fd, path, mount_id):
            return None
        for _ in range(_ATTEMPTS):
            if not self._concerns(mount_id):
                return None
            # What the sources were compared with must hold before and after they were looked at.
            before, path = path, _path(fd)
            if path is not None and path == before:
                return self._judge_place(node, path, mount_id)
            if path is None:
                break
        else:
            return _RESTLESS
        return self._judge_above(node, fd)

    def _judge_above(self, node: Node, fd: fs.Fd) -> str | None:
        """The same for a directory whose path is longer than PATH_MAX: by one above it."""
        while True:  # not by recursion: directories nest deeper than Python's stack
            try:
                fs.present_path(fd)
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG or node.parent is None:
                    return _UNKNOWN_PLACE
                node = node.parent
                fd = self._namespace.open_path(node)
            else:
                return self.directory(node, fd)

    def file(self, node: Node, fd: fs.Fd, status: fs.HostStat) -> str | None:
        """Why the inode *fd*, known as *node*, may not change; None if it may.

        *status* must have been asked of *fd*, after it was opened. May walk what is shown
        read-only: raises WouldBlock where this thread may not wait.
        """
        if not self._namespace.assembly.read_only:
            return None
        if self._clears_file(node, fd, status):
            return None
        path = _path(fd) if status.nlink else None  # before the sources are looked at, and after
        if not self._concerns(status.mount_id):
            return None
        shown = self._shown.files.get((status.dev, status.ino))
        if shown is not None:
            return _shown_at(shown)
        if status.nlink == 0:
            return None
        if path is not None and self._lasts(node, fd, path):
            reason = self._judge_place(node, path, status.mount_id)
            if reason is not None or status.nlink == 1:
                return reason
        return self._judge_links(fd, status)

    def place(self, fd: fs.Fd, status: fs.HostStat) -> str | None:
        """The same as `file`, where no name is known; it may be moved meanwhile."""
        path = _path(fd) if status.nlink else None
        if not self._namespace.assembly.read_only or not self._concerns(status.mount_id):
            return None
        shown = self._shown.files.get((status.dev, status.ino))
        if shown is not None:
            return _shown_at(shown)
        location = None if path is None else self._shown.locator.locate(path, status.mount_id)
        reason = None if location is None else self._shown.why(location)
        return self._judge_links(fd, status) if reason is None and status.nlink > 1 else reason

    def _clears_directory(self, fd: fs.Fd, path: bytes, mount_id: int) -> bool:
        """Whether the directory *fd*, seen at *path*, can quickly be told to be shown nowhere."""
        clearance = self._renew_clearance()
        slope = clearance.slope(mount_id) if clearance.is_worth_it(path) else None
        try:
            return (
                slope is not None
                and clearance.clears(fd, path, slope)
                and clearance.still_holds(slope, self._watch)
                and fs.present_path(fd) == path
            )
        except OSError:
            return False

    def _clears_file(self, node: Node, fd: fs.Fd, status: fs.HostStat) -> bool:
        """The same for a file."""
        clearance = self._renew_clearance()
        slope = clearance.slope(status.mount_id)
        if slope is None or clearance.is_attached((status.dev, status.ino), slope):
            return False
        if status.nlink == 0:
            return clearance.still_holds(slope, self._watch)
        if status.nlink > 1:
            return self._clears_every_name(node, fd, status, clearance, slope)
        if not clearance.may_pay:
            return False
        try:
            home = self._home_of(node)
            if home is None:
                return False
            directory, name = home
            above = fs.present_path(directory).rstrip(b"/")
            path = b"%b/%b" % (above, name)
            return (
                clearance.is_worth_it(path)
                and clearance.clears(directory, above, slope, name)
                and clearance.still_holds(slope, self._watch)
                and _holds(directory, name, status)
                and fs.present_path(fd) == path
            )
        except OSError:
            return False

    def _clears_every_name(
        self, node: Node, fd: fs.Fd, status: fs.HostStat, clearance: _Clearance, slope: Slope
    ) -> bool:
        """The same for a file with several names, where as many are known as it has.

        They are looked at one after the other; that the file had all of them at once is told by its
        time of change, which neither a link nor a rename of it leaves alone.
        """
        if len(node.places) < status.nlink or not _would_show(status):
            return False
        names: set[tuple[Identity, bytes]] = set()
        paths: list[tuple[fs.Fd, bytes]] = []
        try:
            for parent, name in node.places:
                directory = self._namespace.where(parent).fd
                if directory is None:
                    continue
                path, of = fs.present_path(directory), fs.stat_fd(directory)
                if of.mount_id != status.mount_id or not _holds(directory, name, status):
                    continue
                if not clearance.clears(directory, path, slope, name):
                    return False
                names.add(((of.dev, of.ino), name))
                paths.append((directory, path))
            return (
                len(names) == status.nlink
                and clearance.still_holds(slope, self._watch)
                and all(fs.present_path(directory) == path for directory, path in paths)
                and self._has_stayed(fd, status)()
            )
        except OSError:
            return False

    def _lasts(self, node: Node, fd: fs.Fd, path: bytes) -> bool:
        """Whether the name by which *fd* was opened was at *path*, and is there still.

        Removing a name first lowers the link count and tells of it last, so that for a moment a
        file with one link seems to have the name that has just been lost. Whoever removes it holds
        the directory's lock throughout: once we had that, what the kernel says of the name is true.
        """
        above, _, name = path.rpartition(b"/")
        try:
            home = self._home_of(node)
            if home is None or fs.present_path(home[0]).rstrip(b"/") != above:
                return False
            lasts = fs.await_names(home[0], name) and fs.present_path(fd) == path
        except OSError:
            return False
        return lasts and not path.endswith(_DELETED)

    def _home_of(self, node: Node) -> tuple[fs.Fd, bytes] | None:
        """The host directory in which *node* was last seen, and its name there."""
        if node.parent is None:
            return None
        where = self._namespace.where(node.parent)
        at = where.position.children.get(node.name) if where.position is not None else None
        if at is not None and at.mount is not None:  # a file attached by itself
            above, _, name = fs.present_path(at.mount.fd).rpartition(b"/")
            return fs.open_ambient(os.fsdecode(above or b"/")), name
        return None if where.fd is None else (where.fd, node.name)

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

    def _renew_clearance(self) -> _Clearance:
        """What it rests on is told by the kernel (a change of mounts) or by us (of tables)."""
        with self._lock:
            changes, assembly = self._count_changes(), self._namespace.assembly
            known = self._clearance
            if known is None or known.changes != changes or known.assembly is not assembly:
                known = self._clearance = _Clearance(assembly, self._watch.text(), changes)
            return known

    def _count_changes(self) -> int:
        """`_changes`, as of now."""
        self._changes += self._watch.has_changed()
        return self._changes

    def refresh(self) -> None:
        """Look at the host again if anything that judgements rest on has changed."""
        with self._lock:
            if self._clearance and self._clearance.assembly is not self._namespace.assembly:
                self._clearance = None  # or it would keep sources open that were taken away
            basis = self._look_at_basis()
            if basis == self._basis:
                return
            self._mounts = MountSnapshot(parse_mounts(basis.mounts))
            self._look_at_host(basis)
            self._renew_index(basis)
            self._generation, self._basis = self._generation + 1, basis

    def _look_at_basis(self) -> _Basis:
        old = self._basis
        changes = self._count_changes()
        # A mount point that moves with the directory above it is announced by nobody. That matters
        # where a file system is mounted twice: what is mounted once then has no place that fits,
        # and is refused.
        if old is None or self._changes_read != changes or self._has_binds:
            mounts, self._changes_read = self._watch.text(), changes
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
        return mount is not None and mount.fs_type in LOCAL_TYPES


def _path(fd: fs.Fd) -> bytes | None:
    """Where *fd* lies at this moment; None where that cannot be told."""
    try:
        return fs.present_path(fd)
    except OSError:
        return None


def _holds(directory: fs.Fd, name: bytes, status: fs.HostStat) -> bool:
    """Whether *name* in *directory* is the inode with *status*, and not about to be removed."""
    if not fs.await_names(directory, name):
        return False
    found = fs.stat_child(directory, name)
    return (found.dev, found.ino, found.mount_id) == (status.dev, status.ino, status.mount_id)


def _would_show(status: fs.HostStat) -> bool:
    """Whether any later change of the inode must give it another time of change."""
    age = time.time_ns() - status.ctime_ns
    return age > (_COARSE_NS if status.ctime_ns % _SECOND_NS == 0 else _FINE_NS)


def _shown_at(guest: GuestPath) -> str:
    return f"it is shown read-only at {show(guest)}"

"""The index of inodes that the read-only parts of the namespace show, for files with many links.

A hard link says nothing of its other names, so whether one of them is shown read-only takes a walk
through what is. The walk notes inode numbers alone, as getdents(2) lists them, 8 bytes each; of
each directory it notes the times, so that the next walk lists again only what has changed. Every
question is answered by a walk that began after it was asked: what the host linked before is seen.

A walk takes time, and the host may move names meanwhile, from where the walk has yet to come to
where it was already. It is therefore repeated until a pass finds every directory where the pass
before left it, which shows the tree as it was when that pass began. A file may still have moved
from one directory to another; that is ruled out by the file's own status, or else by the times of
the directories, and where neither can tell the walk is repeated. What never comes to rest has no
answer, and whoever asked must take that for a yes.

Walking may take long; call from a worker thread.
"""

import errno
import os
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from overlayd.host import fs
from overlayd.table.mount_tree import Branch

# A directory that changed shortly before it was listed may change again within the resolution of
# its times (up to two seconds on some file systems): it is listed again next time.
_SETTLED_NS = 2_500_000_000

_MAX_PASSES = 16
_MAX_WALKS = 8


@dataclass(frozen=True, slots=True, eq=False)
class ShownTree:
    """A read-only source, and the mount points that mask parts of it."""

    root: fs.Fd
    branch: Branch | None


class _Directory:
    """What is known of one directory of a shown tree."""

    __slots__ = ("children", "dev", "inodes", "listed_at_ns", "strays", "times")

    def __init__(self) -> None:
        self.times: tuple[int, ...] = ()
        """As of the last listing, with the directory's identity; empty before the first."""
        self.listed_at_ns = 0
        self.dev = 0
        self.inodes = array("Q")
        """Of what has the directory's own device number."""
        self.strays: tuple[tuple[int, int], ...] = ()
        """(dev, ino) of what has another: overlayfs over several file systems."""
        self.children: dict[str, _Directory] = {}

    def is_current(self, status: fs.HostStat) -> bool:
        """Whether the listing still holds for a directory with this status."""
        settled = self.listed_at_ns - max(status.mtime_ns, status.ctime_ns) > _SETTLED_NS
        return settled and self.times == _times(status)

    def names(self, dev: int, ino: int) -> bool:
        """Whether the inode was in the listing."""
        return (dev == self.dev and ino in self.inodes) or (dev, ino) in self.strays


def _times(status: fs.HostStat) -> tuple[int, ...]:
    return (status.dev, status.ino, status.mtime_ns, status.ctime_ns)


class LinkIndex:
    """Whether an inode has a name in any of several trees."""

    def __init__(
        self,
        trees: Sequence[ShownTree],
        skip_device: int | None,
        may_block: Callable[[fs.HostStat], bool] = lambda _: False,
        lists_truly: Callable[[fs.HostStat], bool] = lambda _: True,
    ) -> None:
        """*skip_device* is overlayd's own mount, which must not be asked anything.

        In a directory that is not said to list truly each file is asked for its inode number.
        """
        self._may_block = may_block
        self._lists_truly = lists_truly
        self._trees = [(tree, _Directory()) for tree in trees]
        self._skip_device = skip_device
        self._lock = threading.Lock()
        self._walk_began_ns = -1
        self._is_second = False
        """Whether a pass went before in this walk, so that listings are no older than the walk."""
        self._has_shifted = False
        """Whether this pass found, or may have missed, a directory where it was not before."""
        self._is_quiet = True
        """Whether this pass found every directory with the content and the times it had."""
        self.directories = 0
        """How many directories the last walk looked at, counting each pass."""

    def holds(self, dev: int, ino: int, has_stayed: Callable[[], bool] = lambda: False) -> bool:
        """Whether the inode has a name in a shown tree now.

        *has_stayed* tells whether the inode surely kept its names since before this was called, or
        since it was last asked. Raises OSError where nobody knows: part of a tree cannot be read,
        or does not come to rest.
        """
        asked_ns = time.monotonic_ns()
        with self._lock:
            for _ in range(_MAX_WALKS):
                if self._walk_began_ns <= asked_ns:
                    self._walk()
                if any(directory.names(dev, ino) for directory in self._all()):
                    return True
                if has_stayed() or self._is_quiet:
                    return False
                asked_ns = time.monotonic_ns()
        raise _restless()

    def __len__(self) -> int:
        return sum(len(known.inodes) + len(known.strays) for known in self._all())

    def _all(self) -> Iterator[_Directory]:
        pending = [top for _, top in self._trees]
        while pending:
            known = pending.pop()
            yield known
            pending.extend(known.children.values())

    def _walk(self) -> None:
        self.directories = 0
        for number in range(_MAX_PASSES):
            began_ns = time.monotonic_ns()
            self._is_second, self._has_shifted, self._is_quiet = number > 0, False, True
            for tree, top in self._trees:
                self._walk_tree(tree, top)
            if not self._has_shifted:
                self._walk_began_ns = began_ns
                return
        raise _restless()

    def _walk_tree(self, tree: ShownTree, top: _Directory) -> None:
        # One open descriptor per level, not per directory.
        pending = [self._visit(tree.root, tree.branch, top)]
        while pending:
            entered = next(pending[-1], None)
            if entered is None:
                pending.pop()
            else:
                pending.append(self._visit(*entered))

    def _visit(
        self, fd: fs.Fd, branch: Branch | None, known: _Directory
    ) -> Iterator[tuple[fs.Fd, Branch | None, _Directory]]:
        """Bring *known* up to date; what is yielded is to be visited next."""
        status = self._status(fd)
        if status is None:
            return
        self.directories += 1
        if not known.is_current(status):
            self._list(fd, status, branch, known)
        for name, child in known.children.items():
            raw = os.fsencode(name)
            entered = self._enter(fd, raw, child)
            if entered is not None:
                yield entered, branch.children.get(raw) if branch is not None else None, child

    def _enter(self, directory: fs.Fd, name: bytes, known: _Directory) -> fs.Fd | None:
        """Open a subdirectory unless it is current and has none itself, is ours, or has gone."""
        try:
            status = fs.stat_child(directory, name)
            if status.dev != self._skip_device and self._may_block(status):
                status = fs.stat_child(directory, name, fresh=True)
            if status.dev == self._skip_device:
                return None
            if not known.children and known.is_current(status):
                self.directories += 1
                return None
            return fs.open_child(directory, name)
        except FileNotFoundError:
            self._has_shifted = True
            return None

    def _status(self, fd: fs.Fd) -> fs.HostStat | None:
        """Status of what was opened; None where it no longer is the directory that was expected."""
        status = fs.stat_fd(fd)
        if status.is_dir and status.dev != self._skip_device:
            return fs.stat_fd(fd, fresh=True) if self._may_block(status) else status
        self._has_shifted = True
        return None

    def _list(
        self, fd: fs.Fd, status: fs.HostStat, branch: Branch | None, known: _Directory
    ) -> None:
        listed_at_ns = time.time_ns()
        inodes, strays = array("Q"), []
        children: dict[str, _Directory] = {}
        for name, dev, ino in self._entries(fd, status, _masked_names(branch)):
            if ino is None:
                children[name] = known.children.get(name) or _Directory()
            elif dev == status.dev:
                inodes.append(ino)
            else:
                strays.append((dev, ino))
        times = _times(status)
        if known.children.keys() != children.keys() or known.times[:2] != times[:2]:
            self._has_shifted = True
        if known.times != times:
            self._is_quiet = False
            self._has_shifted |= not self._is_second  # what it held since the last walk is unknown
        if (known.inodes, known.strays) != (inodes, tuple(strays)):
            self._is_quiet = False
        known.times, known.listed_at_ns, known.dev = times, listed_at_ns, status.dev
        known.inodes, known.strays, known.children = inodes, tuple(strays), children

    def _entries(
        self, fd: fs.Fd, status: fs.HostStat, masked: frozenset[str]
    ) -> Iterator[tuple[str, int, int | None]]:
        """Name, device and inode number of all that is shown in *fd*; no number for directories."""
        lists_truly = self._lists_truly(status)
        stream = fs.reopen(fd, os.O_RDONLY | os.O_DIRECTORY)
        with os.scandir(stream.number) as entries:
            for entry in entries:
                if entry.name in masked:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    yield entry.name, status.dev, None
                elif lists_truly:
                    yield entry.name, status.dev, entry.inode()
                else:
                    try:
                        found = fs.stat_child(stream, os.fsencode(entry.name))
                    except FileNotFoundError:
                        self._is_quiet = False
                    else:
                        yield entry.name, found.dev, found.ino


def _restless() -> OSError:
    return OSError(errno.EAGAIN, "what is shown read-only is being changed all the time")


def _masked_names(branch: Branch | None) -> frozenset[str]:
    if branch is None:
        return frozenset()
    names = (name for name, child in branch.children.items() if child.mount is not None)
    return frozenset(os.fsdecode(name) for name in names)

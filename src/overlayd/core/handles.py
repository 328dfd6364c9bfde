"""Handles: what guests hold open, by the number the kernel was given. The only owner of them."""

import os
import threading
from collections.abc import Iterator

from overlayd.core.nodes import Node
from overlayd.core.ways import Way
from overlayd.errors import ebadf
from overlayd.host.credentials import Caller
from overlayd.host.fs import Fd

_ACCESS_MODE = os.O_RDONLY | os.O_WRONLY | os.O_RDWR


def is_writable(flags: int) -> bool:
    """Whether what is opened with *flags* can be written to."""
    return flags & _ACCESS_MODE != os.O_RDONLY


class Handle:
    """An open file or directory stream."""

    __slots__ = (
        *("clears_set_id", "fd", "flags", "has_set_id", "is_path", "listing", "node"),
        *("number", "opener", "revoked", "way"),
    )

    def __init__(self, number: int, node: Node, fd: Fd | None, flags: int, opener: Caller) -> None:
        self.number = number
        self.node = node
        self.fd = fd
        """None for a synthetic directory."""
        self.is_path = False
        """Directories: whether *fd* is only O_PATH so far, since nothing was listed yet."""
        self.flags = flags
        """As given to open(2) on the host."""
        self.opener = opener
        """Whose rights writing through it is done with (set-id bits are cleared by them)."""
        self.revoked = False
        """Whether writing through it came to an end: what it is open on is now read-only."""
        self.clears_set_id = False
        """Whether somebody writes through it after whom no set-id bit may be left."""
        self.has_set_id = False
        """Whether that had a set-id bit when it was opened for writing."""
        self.way: Way | None = None
        """Regular files: how its data goes."""
        self.listing: list[bytes] | None = None
        """Directories: the names as they were when the listing was last begun."""

    @property
    def device(self) -> int:
        """Device number of the host file system it is open on, 0 for a synthetic directory."""
        return self.node.key.dev if self.node.key is not None else 0

    @property
    def passes_us(self) -> bool:
        """Whether the kernel reads and writes for it by itself.

        Not for one that may write to a file which it would write with somebody else's rights, and
        not to one with set-id bits: it would go by who has opened it, not by who writes.
        """
        way = self.way
        if way is None or not way.backing:
            return False
        if not self.writable:
            return True
        return not self.has_set_id and way.by_root == (self.opener.uid == 0)

    @property
    def cannot_be_revoked(self) -> bool:
        """Whether a guest may write with it without our hearing of it, if only to a mapping."""
        return self.writable and self.way is not None and self.way.backing > 0

    @property
    def may_be_mapped(self) -> bool:
        """Whether a guest may store to a mapping of it, which takes the right to read, too."""
        return self.cannot_be_revoked and self.flags & _ACCESS_MODE == os.O_RDWR

    @property
    def writable(self) -> bool:
        """Whether it was opened for writing."""
        return is_writable(self.flags)


class HandleTable:
    """All open handles, by number."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 1
        self._by_number: dict[int, Handle] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def open(self, node: Node, fd: Fd | None, flags: int, opener: Caller) -> Handle:
        """Give out a new handle."""
        with self._lock:
            handle = Handle(self._next, node, fd, flags, opener)
            self._next += 1
            self._by_number[handle.number] = handle
            if node.handles is None:
                node.handles = set()
            node.handles.add(handle.number)
            return handle

    def get(self, number: int) -> Handle:
        """The open handle *number*; raises EBADF for any other."""
        try:
            return self._by_number[number]
        except KeyError:
            raise ebadf() from None

    def __iter__(self) -> Iterator[Handle]:
        return iter(list(self._by_number.values()))

    def descriptor_on(self, node: Node) -> Fd | None:
        """What one handle on *node* is open on, however many there are; None where none is."""
        with self._lock:
            for number in node.handles or ():
                fd = self._by_number[number].fd
                if fd is not None:
                    return fd
        return None

    def move(self, node: Node, other: Node) -> None:
        """Let what is open on *node* be open on *other* instead."""
        with self._lock:
            for number in node.handles or ():
                self._by_number[number].node = other
            node.handles, other.handles = None, node.handles

    def close(self, number: int) -> Handle:
        """Take handle *number* back; the caller closes its descriptor. Raises EBADF."""
        with self._lock:
            handle = self._by_number.pop(number, None)
            if handle is None:
                raise ebadf()
            if handle.node.handles is not None:
                handle.node.handles.discard(number)
                if not handle.node.handles:
                    handle.node.handles = None
            return handle

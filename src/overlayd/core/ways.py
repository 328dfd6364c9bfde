"""Which way the data of each open file goes: past us, straight to the host file, or through us.

The kernel takes the data of one inode one way for as long as it is open, and from one backing file.
So the first who opens it decides, and all others follow until the last one has closed it. This is
the only owner of the numbers that backing files have with the kernel.
"""

import threading
from collections.abc import Callable
from typing import Protocol

from overlayd.core.nodes import Node
from overlayd.host.fs import Fd


class Registry(Protocol):
    """Where files are registered that the kernel is to read and write past us."""

    def register(self, fd: Fd) -> int:
        """The number of the file that *fd* names, above 0; 0 where it has to go through us.

        The kernel will write it with the rights that this thread has at the moment.
        """

    def give_back(self, backing: int) -> None:
        """Nothing new is opened by the number *backing* any more."""


class Way:
    """How the data of one open inode goes."""

    __slots__ = ("backing", "by_root", "handles", "node", "writers")

    def __init__(self, node: Node, backing: int, by_root: bool) -> None:
        self.node = node
        self.backing = backing
        """The number of its backing file, 0 where its data goes through us."""
        self.by_root = by_root
        """Whether the kernel writes the backing file with root's rights."""
        self.handles = 0
        self.writers = 0
        """How many of them were opened for writing."""


class Ways:
    """The ways of all open files. Files are opened in several threads at once."""

    def __init__(self) -> None:
        self.registry: Registry | None = None
        """None where all data goes through us."""
        self.kept_size = 0
        """Files of at most so many bytes go through us where they are opened only to be read: what
        the kernel keeps of them then, attributes too, it need not ask for another time."""
        self.holds_back = False
        """Whether what is opened for writing by nobody yet goes through us for the moment."""
        self._lock = threading.Lock()
        self._by_node: dict[Node, Way] = {}
        self.backings = 0
        """How many numbers of backing files there are at the moment."""
        self.opened = 0
        """How many handles there were, so far, whose data went past us."""

    def join(
        self, node: Node, find: Callable[[], Fd | None], *, writes: bool, by_root: bool
    ) -> Way:
        """The way for one more handle on *node*.

        *find* gives the descriptor to register it by, None to have its data go through us; it is
        called where nobody has the file open yet. It is registered with the rights of this thread,
        which are root's or not, as *by_root* says.
        """
        with self._lock:
            way = self._by_node.get(node)
            if way is None:
                backing = 0
                fd = None if self.registry is None or (writes and self.holds_back) else find()
                if fd is not None and self.registry is not None:
                    backing = self.registry.register(fd)
                    self.backings += backing > 0
                way = self._by_node[node] = Way(node, backing, by_root)
            way.handles += 1
            way.writers += writes
            self.opened += way.backing > 0
            return way

    def leave(self, way: Way, *, writes: bool) -> None:
        """One handle fewer; with the last one its backing file is given back."""
        with self._lock:
            way.handles -= 1
            way.writers -= writes
            if way.handles:
                return
            del self._by_node[way.node]
            if way.backing and self.registry is not None:
                self.backings -= 1
                self.registry.give_back(way.backing)

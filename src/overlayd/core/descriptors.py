"""A bounded cache of O_PATH descriptors, least recently used first out.

The kernel may know millions of inodes; descriptors are few. A node that is not here is opened
again from its parent and its name, and the identity of what is found is compared. What has no
name left (removed while a guest still looks at it) can be reached only as long as it stays here
or a handle is open on it, and for so long the host keeps its room on the disk.
"""

import errno
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import TypeVar

from overlayd.core.nodes import Node
from overlayd.host.fs import Fd

T = TypeVar("T")


class DescriptorCache:
    """Node to descriptor; safe to use from several threads."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._entries: OrderedDict[Node, Fd] = OrderedDict()
        self._lately_removed: set[Node] = set()
        self.freed = 0
        """How many removed objects were let go of so far, so that the host can use their room."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, node: Node) -> Fd | None:
        """The descriptor of *node*, which becomes the most recently used."""
        if len(self._entries) * 2 < self._capacity:  # none has to give way for a long time yet
            return self._entries.get(node)
        with self._lock:
            fd = self._entries.get(node)
            if fd is not None:
                self._entries.move_to_end(node)
            return fd

    def put(self, node: Node, fd: Fd) -> None:
        """Remember *fd* for *node*; what was used longest ago gives way."""
        with self._lock:
            self._put(node, fd)

    def put_removed(self, node: Node, fd: Fd) -> None:
        """The same for a *node* that has no name left, which the kernel is about to forget."""
        with self._lock:
            self._put(node, fd)
            self._lately_removed.add(node)

    def _put(self, node: Node, fd: Fd) -> None:
        self._entries[node] = fd
        self._entries.move_to_end(node)
        if len(self._entries) > self._capacity:
            self._evict()

    def _evict(self) -> None:
        node, _ = self._entries.popitem(last=False)
        self._note_freed(node)

    def _note_freed(self, node: Node) -> None:
        if node in self._lately_removed:
            self._lately_removed.remove(node)
            self.freed += 1

    def drop(self, node: Node) -> None:
        """Forget *node*; its descriptor closes when nobody uses it any more."""
        with self._lock:
            if self._entries.pop(node, None) is not None:
                self._note_freed(node)

    def shrink(self) -> bool:
        """Let go of the older half; whether there was anything to let go of."""
        with self._lock:
            count = (len(self._entries) + 1) // 2
            for _ in range(count):
                self._evict()
            return count > 0

    def lingering(self) -> set[Node]:
        """What was removed, is open nowhere, and waits for the kernel to forget it."""
        with self._lock:
            return {node for node in self._lately_removed if not node.handles}

    def lingers(self) -> bool:
        """Whether there may be any such thing; costs nothing."""
        return bool(self._lately_removed)

    def stop_expecting(self, nodes: Collection[Node]) -> None:
        """The kernel keeps *nodes*, since a guest does: they linger no more."""
        with self._lock:
            self._lately_removed.difference_update(nodes)

    def opening(self, open_it: Callable[[], T]) -> T:
        """Call *open_it*, giving up cached descriptors for as long as the limit is reached."""
        while True:
            try:
                return open_it()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE) or not self.shrink():
                    raise

"""What was asked of the daemon, counted in plain integers, since every request pays for them.

Only the event loop counts, so nothing is locked; whoever reads may be a moment behind.
"""

from collections import Counter, defaultdict
from typing import Literal

from overlayd.core.assembly import Attachment
from overlayd.core.namespace import Namespace
from overlayd.core.nodes import provider_of

Subject = Literal["inode", "handle"]

_ON_HANDLES = frozenset(
    ("read", "write", "flush", "fsync", "release", "readdir", "fsyncdir", "releasedir")
)
_LAST = frozenset(("release", "releasedir"))


def subject_of(operation: str) -> Subject | None:
    """What the first argument of the handler *operation* is the number of."""
    if operation == "statfs":
        return None
    return "handle" if operation in _ON_HANDLES else "inode"


class Tally:
    """What went through one preopen."""

    __slots__ = ("bytes_read", "bytes_written", "handles", "operations")

    def __init__(self) -> None:
        self.operations = 0
        self.bytes_read = 0
        self.bytes_written = 0
        self.handles = 0
        """How many are open."""


class Counters:
    """Requests by operation, errors by number, and both directions of data by preopen."""

    def __init__(self, namespace: Namespace) -> None:
        self.operations: Counter[str] = Counter()
        self.errors: Counter[int] = Counter()
        """As they were answered, by errno."""
        self._by_provider: defaultdict[int, Tally] = defaultdict(Tally)
        """By the seed of what provides something: the thing itself would keep its source open."""
        self._nodes = namespace.nodes
        self._handles = namespace.handles
        self._by_handle: dict[int, Tally] = {}

    def request(self, operation: str, subject: Subject | None, number: int, times: int = 1) -> None:
        """One request came in, or as many as *times*, about the inode or handle *number*."""
        self.operations[operation] += times
        if subject == "handle":
            self._on_handle(operation, number, times)
        elif subject == "inode":
            try:
                node = self._nodes.get(number)
            except OSError:  # never given out, or forgotten: the answer will say so
                return
            mount = provider_of(node)
            self._by_provider[0 if mount is None else mount.seed].operations += times

    def _on_handle(self, operation: str, number: int, times: int) -> None:
        tally = self._by_handle.get(number)
        if tally is None:
            return
        tally.operations += times
        if operation in _LAST:
            tally.handles -= 1
            del self._by_handle[number]

    def of(self, mount: Attachment | None) -> Tally:
        """What *mount* provided, and whatever was attached at its guest path before."""
        return self._by_provider[0 if mount is None else mount.seed]

    def opened(self, handle: int) -> None:
        """*handle* was given out. It counts for the preopen it was opened through to its end."""
        node = self._handles.get(handle).node
        tally = self.of(provider_of(node))
        tally.handles += 1
        self._by_handle[handle] = tally

    def read(self, handle: int, count: int) -> None:
        """*count* bytes were read through *handle*."""
        tally = self._by_handle.get(handle)
        if tally is not None:
            tally.bytes_read += count

    def written(self, handle: int, count: int) -> None:
        """*count* bytes were written through *handle*."""
        tally = self._by_handle.get(handle)
        if tally is not None:
            tally.bytes_written += count

"""Keeping what the kernel knows within bounds: it is told to let go of names, the oldest first.

The kernel gives inodes back when it needs memory itself, which on a large machine is never, while
each inode that it knows costs this daemon some memory too. Once a name is invalidated, the kernel
forgets the inode unless somebody uses it; who asks for the name again costs one lookup.
"""

import stat

import trio

from overlayd.core.namespace import Namespace
from overlayd.core.nodes import Node
from overlayd.kernel import notifications
from overlayd.kernel.notifications import Notifier

MAX_NODES = 1_000_000
_PAUSE = 0.25  # seconds
_AT_ONCE = 8192


class Crowded:
    """Whether the kernel knows more nodes than it should; noticed by whoever answers requests."""

    def __init__(self) -> None:
        self.limit = MAX_NODES
        self._event = trio.Event()

    def note(self, nodes: int) -> None:
        """There are *nodes* now. To be called on the event loop."""
        if nodes > self.limit:
            self._event.set()

    async def wait(self) -> None:
        """Return as soon as there are too many."""
        await self._event.wait()

    def is_over(self) -> None:
        """Nothing can be done about it, or need be, before the next request."""
        self._event = trio.Event()


class Forgetter:
    """Has the kernel forget as many nodes as there are above the limit.

    Directories stay, as somebody may work in one; so does what is open, and what lies on a source
    that may keep a caller waiting, since the kernel may have to wait for it too.
    """

    def __init__(self, namespace: Namespace, crowded: Crowded, notifier: Notifier) -> None:
        self._namespace = namespace
        self._crowded = crowded
        self._notifier = notifier

    async def run(self) -> None:
        """For ever; asleep for as long as there are not too many, or none of them goes."""
        while True:
            await self._crowded.wait()
            await self._relieve()
            self._crowded.is_over()

    async def _relieve(self) -> None:
        """Return when there is room, or once all were looked at and none has gone."""
        nodes = self._namespace.nodes
        fewest = unseen = len(nodes)
        while True:
            await trio.sleep(_PAUSE)
            if len(nodes) < fewest:
                fewest = unseen = len(nodes)
            excess = len(nodes) - self._crowded.limit
            if excess <= 0 or unseen <= 0:
                return
            count = min(excess + self._crowded.limit // 16, _AT_ONCE)
            unseen -= count
            places = [p for node in nodes.oldest(count) if self._may_go(node) for p in node.places]
            await self._notifier.tell(
                notifications.dropped(p.parent.number, p.name) for p in places
            )

    def _may_go(self, node: Node) -> bool:
        is_busy = node.file_type == stat.S_IFDIR or node.handles
        return not is_busy and not self._namespace.may_block(node)

"""Which host directories and files are watched, for which of the nodes that the kernel knows.

A directory is watched before the host is first asked for something in it, so that no change can
fall between the answer and the watch; it is watched until the kernel forgets its node.

All of it belongs to the event loop. `may_rely_on` may be asked from any thread.
"""

import errno
import logging
import stat
import time
from typing import TYPE_CHECKING

import trio

from overlayd.core.namespace import Namespace
from overlayd.core.nodes import Node
from overlayd.core.numbers import NodeKey
from overlayd.core.types import WouldBlock
from overlayd.host import fs
from overlayd.kernel.cache import LASTING, SHORT, UNWATCHABLE

if TYPE_CHECKING:
    from overlayd.host.watch import HostWatch

log = logging.getLogger(__name__)

_LIMITS = {
    errno.ENOSPC: "max_user_watches",
    errno.EMFILE: "max_user_instances",
}
_RETRY_SECONDS = 1.0
_SLICE = 128


class Watcher:
    """The watches of one mount."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self.host: HostWatch | None = None
        """None where nothing is watched: in other modes, and before the mount is live."""
        self.wanted = trio.Event()
        """Set when `host` ought to be there and is not."""
        self._by_node: dict[Node, tuple[int, NodeKey | None]] = {}
        self._by_watch: dict[int, tuple[Node, ...]] = {}
        self._ignored: dict[Node, set[int]] = {}
        """Files whose modifications are of no interest, and the watches that were told so."""
        self._retry_at = 0.0
        self._has_warned = False

    def __len__(self) -> int:
        return len(self._by_node)

    def start(self, host: "HostWatch") -> None:
        """Watch through *host* from now on."""
        self.host = host

    def stop(self) -> None:
        """Give all watches back."""
        if self.host is not None:
            self.host.close()
        self.host = None
        self._by_node.clear()
        self._by_watch.clear()
        self._ignored.clear()

    def may_rely_on(self, node: Node) -> bool:
        """Whether it is told what happens in the directory, or to the file, that *node* is."""
        watch = self._by_node.get(node)
        return watch is not None and watch[1] is node.key

    def watch(self, node: Node) -> float:
        """Watch *node* if that can be; how long the kernel may keep what is found out from now on.

        Of a directory that is what lies in it and its own attributes; of a file the latter.
        """
        watch = self._by_node.get(node)
        if watch is not None:
            if watch[1] is node.key:
                return LASTING
            self.forget(node)  # another host directory is at this place of the mount tree now
        if self._retry_at and time.monotonic() < self._retry_at:
            return UNWATCHABLE
        if self.host is None and self._retry_at:
            self.wanted.set()
        if self.host is None or node.key is None:
            return SHORT
        try:
            fd = self._namespace.open_path(node)
        except (OSError, WouldBlock):  # whoever wants something of it will hear of that
            return SHORT
        return self._add(self.host, node, fd)

    def _add(self, host: "HostWatch", node: Node, fd: fs.Fd) -> float:
        try:
            number = host.add(fd, directory=node.file_type == stat.S_IFDIR)
        except OSError as error:
            self.refused(error)
            return UNWATCHABLE
        self._retry_at = 0.0
        self._by_node[node] = (number, node.key)
        self._by_watch[number] = (*self._by_watch.get(number, ()), node)
        return LASTING

    def refused(self, error: OSError) -> None:
        """Note, and once say, that there is no watch to be had."""
        limit = _LIMITS.get(error.errno or 0)
        if limit is None:  # of this object alone
            return
        self._retry_at = time.monotonic() + _RETRY_SECONDS
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "no more directories can be watched, so that changes on the host may show after"
                " one second; raise fs.inotify.%s with sysctl",
                limit,
            )

    def forget(self, node: Node) -> None:
        """The kernel knows nothing of *node* any more."""
        self._ignored.pop(node, None)
        watch = self._by_node.pop(node, None)
        if watch is None:
            return
        number = watch[0]
        nodes = tuple(other for other in self._by_watch[number] if other is not node)
        self._by_watch[number] = nodes
        if not nodes:
            del self._by_watch[number]
            self._retry_at = 0.0
            if self.host is not None:
                self.host.remove(number)

    def ignore(self, file: Node, watched: Node) -> None:
        """Hear no more of modifications of *file* by the watch of *watched*, until `heed`.

        That is its directory, or the file itself.
        """
        watch = self._by_node.get(watched)
        if watch is None or self.host is None or watch[0] in self._ignored.get(file, ()):
            return
        fd = self._namespace.handles.descriptor_on(file)
        if fd is None:
            return
        try:
            directory = None if watched is file else self._namespace.open_path(watched)
        except (OSError, WouldBlock):
            return
        self._ignored.setdefault(file, set()).add(watch[0])
        self.host.ignore(watch[0], directory, file, fd)

    def heed(self, file: Node, fd: fs.Fd) -> None:
        """Hear of modifications of *file*, which *fd* names, again."""
        if self._ignored.pop(file, None) is not None and self.host is not None:
            self.host.heed(file, fd)

    async def renew(self) -> None:
        """Watch all that is watched anew, since some of it may have ended unnoticed."""
        if self.host is not None:
            self.host.heed_all()
        self._ignored.clear()
        former = [(node, watch[0]) for node, watch in self._by_node.items()]
        self._by_node.clear()
        self._by_watch.clear()
        for count, (node, number) in enumerate(former, 1):
            if self._namespace.nodes.peek(node.number) is node:  # else forgotten meanwhile
                self.watch(node)
            if number not in self._by_watch and self.host is not None:
                self.host.remove(number)
            if count % _SLICE == 0:
                await trio.lowlevel.checkpoint()

    def nodes_of(self, number: int) -> tuple[Node, ...]:
        """The nodes that watch *number* is for."""
        return self._by_watch.get(number, ())

    def ended(self, number: int) -> None:
        """The host took watch *number* away with what it was for."""
        for node in self._by_watch.pop(number, ()):
            del self._by_node[node]

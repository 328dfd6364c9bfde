"""What the host changes behind the mount's back, and what the kernel has to forget for it.

Events are read a moment after the first of them, taken together by name, and looked into on the
event loop: what a name is now is asked of the host, not read from the event. What comes of it is
told to the kernel in a thread.

The daemon's own operations cause events too. They must not cost the kernel what it was just told,
so where one is expected the present state is compared with what the kernel knows; see `coherence`.
"""

import logging
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from overlayd.core.namespace import Namespace, Where
from overlayd.core.nodes import Node
from overlayd.core.numbers import DIRECTORY
from overlayd.core.remount import Outdated
from overlayd.core.types import WouldBlock
from overlayd.host import device, fs
from overlayd.host.mounts import Mount, MountChanges, components_below
from overlayd.kernel import notifications
from overlayd.kernel.coherence import ABSENT, NOT_RELIED_ON, ONLY_CTIME, Coherence
from overlayd.kernel.notifications import Notifier

if TYPE_CHECKING:
    from overlayd.host.watch import Events, HostWatch

log = logging.getLogger(__name__)

_PAUSE = 0.01  # seconds
_SLICE = 128
_COARSE_NS = 20_000_000
_FINE_TIMES = (6, 13)
"""From this kernel on, a file that changes after it was looked at always gets another ctime."""

# inotify(7); not from `host.watch`, which a mount that watches nothing does not load
_ATTRIB, _UNMOUNT, _IGNORED = 0x4, 0x2000, 0x8000
_MODIFY = 0x2
_CONTENT = _MODIFY | 0x8
_GOES, _COMES = 0x40 | 0x200, 0x80 | 0x100
_NAMES = _GOES | _COMES
_OVERFLOW = (-1, b"")


class _Batch:
    """What the kernel has to be told about one lot of events."""

    def __init__(self) -> None:
        self.names: dict[tuple[int, bytes], bool] = {}
        """Whether all that is cached below the name must go, too."""
        self.inodes: dict[int, bool] = {}
        """Whether content or listing must go, too."""
        self.touched: dict[Node, bool] = {}
        """Directories in which names changed; whether anybody but this daemon changed one."""
        self.emptied: set[Node] = set()
        """Directories of which no name is right any more."""
        self.where: dict[Node, Where | None] = {}
        self.held: dict[tuple[Node, bytes], list[Node]] | None = None

    def inode(self, number: int, *, data: bool) -> None:
        self.inodes[number] = data or self.inodes.get(number, False)

    def messages(self) -> list[bytes]:
        said = [
            notifications.dropped(*name) if below else notifications.expired(*name)
            for name, below in self.names.items()
        ]
        said += [notifications.changed(number, data=data) for number, data in self.inodes.items()]
        return said


class HostChanges:
    """Has the kernel forget what the host changed."""

    def __init__(self, namespace: Namespace, coherence: Coherence, notifier: Notifier) -> None:
        self._namespace = namespace
        self._coherence = coherence
        self._watcher = coherence.watcher
        self._notifier = notifier
        self._mounted = trio.Event()
        """Set when anything was mounted or unmounted since that was last looked into."""
        self._times_are_fine = device.kernel_version() >= _FINE_TIMES

    def adjust(self) -> None:
        """Begin to watch the host where the policy in force wants that.

        There is no end to it: absent names that the kernel keeps nobody can list, so that what is
        watched stays watched until the kernel forgets the directory.
        """
        if self._coherence.policy.watches and self._watcher.host is None:
            self._watcher.wanted.set()

    async def run(self) -> None:
        """For ever; asleep for as long as nothing is watched or nothing happens."""
        async with trio.open_nursery() as nursery:
            host = None
            while host is None:
                await self._watcher.wanted.wait()
                self._watcher.wanted = trio.Event()
                host = await self._open()
            self._watcher.start(host)
            nursery.start_soon(self._settle_doubts)
            nursery.start_soon(self._follow_mounts, nursery)
            try:
                await self._listen(host, nursery)
            finally:  # what is watched is busy, and at the end of a process for longer than it is
                self._watcher.stop()

    async def _open(self) -> "HostWatch | None":
        try:
            return await trio.to_thread.run_sync(_open_watch)
        except OSError as error:
            self._watcher.refused(error)
            return None

    async def _listen(self, host: "HostWatch", nursery: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(host.descriptor)
            await trio.sleep(_PAUSE)
            events = host.take()
            is_lost = events.pop(_OVERFLOW, 0) != 0
            try:
                messages = await self.heed(events)
                if messages:
                    nursery.start_soon(self._notifier.tell, messages)
            except Exception:  # out of here it would end the mount
                log.exception("a change on the host: unexpected")
                is_lost = True
            if is_lost:
                log.info("lost count of the changes on the host; the kernel asks for all again")
                await self._watcher.renew()
                nursery.start_soon(self.forget_everything)

    async def _settle_doubts(self) -> None:
        """Have the kernel forget attributes that it is to ask for each time from now on."""
        coherence = self._coherence
        while True:
            await coherence.doubt.wait()
            await trio.sleep(_PAUSE)
            doubtful, coherence.doubtful = coherence.doubtful, set()
            coherence.doubt = trio.Event()
            await self._notifier.tell([notifications.changed(n, data=False) for n in doubtful])

    async def _follow_mounts(self, nursery: trio.Nursery) -> None:
        """What is mounted in a source changes what is there, and inotify does not tell."""
        table = MountChanges()
        try:
            async with trio.open_nursery() as waiting:
                waiting.start_soon(self._notice_mounts, table)
                self._mounted.set()  # since the table was opened and before that waits
                while True:
                    await trio.sleep(_PAUSE)
                    await self._mounted.wait()
                    self._mounted = trio.Event()
                    if self._are_inside(table.take()):
                        nursery.start_soon(self.forget_everything)
        finally:
            table.close()

    async def _notice_mounts(self, table: MountChanges) -> None:
        """Wait for the next change while the last one is looked into: none in between is missed."""
        while True:
            await trio.lowlevel.wait_readable(table.descriptor)
            self._mounted.set()

    def _are_inside(self, mounts: Sequence[Mount]) -> bool:
        """Whether any of *mounts* lies in a source."""
        if not mounts:
            return False
        sources = []
        for source in self._namespace.sources:
            with suppress(OSError):  # longer than PATH_MAX
                sources.append(fs.present_path(source.fd))
        return any(components_below(m.mount_point, path) for m in mounts for path in sources)

    async def forget_everything(self) -> None:
        """Have the kernel ask again for all it knows.

        But for what lies on a slow source, which it does so for soon enough: it would wait for
        requests that are under way there, for ever if need be, and all others with it.
        """
        space = self._namespace
        nodes = list(space.nodes)
        await self._notifier.tell(self._expired_in(nodes))
        await self._notifier.tell(
            notifications.changed(node.number, data=True)
            for node in nodes
            if not space.may_block(node)
        )

    async def table_changed(self, outdated: Outdated) -> None:
        """Have the kernel forget what another mount table makes of what it knows."""
        names = [notifications.dropped(*name) for name in outdated.names]
        numbers = outdated.inodes | {parent for parent, _ in outdated.names}  # for their listings
        inodes = [notifications.changed(number, data=True) for number in numbers]
        await self._notifier.tell([*names, *inodes])
        found = [self._namespace.nodes.peek(number) for number in outdated.inodes]
        nodes = [node for node in found if node is not None]
        for node in nodes:  # first: what comes to be in them now is told of, or listed
            self._coherence.names_of(node)
        await self._notifier.tell(self._expired_in(nodes))

    def _expired_in(self, nodes: Sequence[Node]) -> Iterator[bytes]:
        """All names of *nodes*, and those that the host has in them, are to be asked for again.

        The latter since the kernel may take them for absent. To be gone through in a thread.
        """
        space = self._namespace
        for node in nodes:
            for place in node.places:
                if not space.may_block(place.parent):
                    yield notifications.expired(place.parent.number, place.name)
            if node.file_type == DIRECTORY and not space.may_block(node):
                with suppress(OSError, WouldBlock):
                    for name in space.names_now(node):
                        yield notifications.expired(node.number, name)

    # -- looking into events --------------------------------------------------------------------

    async def heed(self, events: "Events") -> list[bytes]:
        """What the kernel must be told because of *events*, which have just been read."""
        self._coherence.turn()
        batch = _Batch()
        for count, ((number, name), mask) in enumerate(events.items(), 1):
            for node in self._watcher.nodes_of(number):
                if name:
                    self._heed_name(node, name, mask, batch)
                else:
                    self._heed_itself(node, mask, batch)
            if mask & _IGNORED:
                self._watcher.ended(number)
            if count % _SLICE == 0:
                await trio.lowlevel.checkpoint()
        for node, by_host in batch.touched.items():
            self._heed_directory(node, by_host, batch)
        if batch.emptied:
            await self._expire_names_in(batch)
        return batch.messages()

    def _heed_name(self, directory: Node, name: bytes, mask: int, batch: _Batch) -> None:
        if directory.position is not None and name in directory.position.children:
            self._heed_position(directory, name, mask, batch)
            return
        believed = self._coherence.former.names.get((directory.number, name))
        if believed == ABSENT and mask & _GOES and not mask & _COMES:
            # It went, as the kernel knows, and nothing tells that it is there again.
            known, is_there, status = None, False, None
        else:
            known, is_there, status = self._present(directory, name, batch)
        if mask & _NAMES:
            present = known.number if known is not None else None if is_there else ABSENT
            by_host = believed is None or believed != present
            batch.touched[directory] = by_host or batch.touched.get(directory, False)
            if by_host:
                batch.names[directory.number, name] = False
                self._heed_held(directory, name, known, batch)
        if known is not None and mask & _MODIFY:
            self._ignore_own_writes(known, directory)
        if known is not None and status is not None and not self._knows(known, status, mask):
            is_file = stat.S_ISREG(known.file_type)
            batch.inode(known.number, data=is_file and bool(mask & ~_ATTRIB))

    def _ignore_own_writes(self, file: Node, watched: Node) -> None:
        """*file* was modified, which is of no interest where the kernel writes it past us.

        What is closed by now was not worth the trouble.
        """
        if file in self._coherence.written_past_us:
            self._watcher.ignore(file, watched)

    def _present(
        self, directory: Node, name: bytes, batch: _Batch
    ) -> tuple[Node | None, bool, fs.HostStat | None]:
        """What the kernel may know of what *name* is now, whether anything is, and its status."""
        space = self._namespace
        try:
            where = batch.where.get(directory)
            if where is None:
                where = batch.where[directory] = space.where(directory)
            found = space.child(where, name)
        except FileNotFoundError:
            return None, False, None
        except (OSError, WouldBlock):
            return None, True, None
        return space.known(directory, name, found), True, found.status

    def _knows(self, node: Node, status: fs.HostStat, mask: int) -> bool:
        """Whether the kernel knows of the change to *node*, since it was made through the mount."""
        if node in self._coherence.written_past_us:
            return True  # it asks each time
        if node.number not in self._coherence.former.inodes:
            return False
        if node.told_ns is None:
            return not mask & _ATTRIB
        if node.told_ns == ONLY_CTIME:
            return not mask & (_ATTRIB | _CONTENT)
        if node.told_ns == NOT_RELIED_ON:
            return True
        is_sure = self._times_are_fine or time.time_ns() - status.ctime_ns > _COARSE_NS
        return is_sure and node.told_ns == status.ctime_ns

    def _heed_held(self, directory: Node, name: bytes, known: Node | None, batch: _Batch) -> None:
        """Somebody may have open what was called *name*: its links have changed, too."""
        if batch.held is None:
            batch.held = {}
            for handle in self._namespace.handles:
                for place in handle.node.places:
                    batch.held.setdefault((place.parent, place.name), []).append(handle.node)
        for node in batch.held.get((directory, name), ()):
            if node is not known:
                batch.inode(node.number, data=False)
                if node.file_type != DIRECTORY:
                    self._coherence.strayed.add(node)

    def _heed_position(self, directory: Node, name: bytes, mask: int, batch: _Batch) -> None:
        """Something happened to what the host has at, or above, a mount point."""
        assert directory.position is not None
        if mask & _NAMES:
            batch.touched[directory] = True
        position = directory.position.children[name]
        if position.mount is not None:
            return
        node = self._namespace.nodes.at(position)
        if node is None:
            return
        before = node.key
        with suppress(OSError, WouldBlock):
            self._namespace.status_of(node)
        batch.inode(node.number, data=True)
        if node.key != before:
            batch.names[directory.number, name] = True
            batch.emptied.add(node)

    def _heed_itself(self, node: Node, mask: int, batch: _Batch) -> None:
        """Something happened to the watched object, not to a name in it."""
        try:
            status = self._namespace.status_of(node)
        except (OSError, WouldBlock):
            status = None
        if mask & _MODIFY:
            self._ignore_own_writes(node, node)
        if status is None or not self._knows(node, status, mask):
            is_file = node.file_type != DIRECTORY
            batch.inode(node.number, data=is_file and bool(mask & _CONTENT))
        if mask & _UNMOUNT:
            batch.emptied.add(node)

    def _heed_directory(self, node: Node, by_host: bool, batch: _Batch) -> None:
        """Names in *node* have changed, and with them its own attributes and its listing."""
        if not by_host and not node.told_ns:
            return  # the kernel knows that they are out of date
        if not by_host:
            try:
                status = self._namespace.status_of(node)
            except (OSError, WouldBlock):
                status = None
            if status is not None and self._knows(node, status, 0):
                return
        batch.inode(node.number, data=True)

    async def _expire_names_in(self, batch: _Batch) -> None:
        for count, node in enumerate(self._namespace.nodes, 1):
            for place in node.places:
                if place.parent in batch.emptied:
                    batch.names.setdefault((place.parent.number, place.name), False)
            if count % 4096 == 0:
                await trio.lowlevel.checkpoint()


def _open_watch() -> "HostWatch":
    from overlayd.host.watch import HostWatch

    return HostWatch()

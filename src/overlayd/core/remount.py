"""Another table under a live mount: what becomes of all that the kernel and guests hold.

One rule decides. A name stays what it is where the new table shows the same attachment there as
the old one did; everything else is looked up anew. A directory that is no longer shown answers
ESTALE from then on; a file that lost its last name is left to those who have it open, as one that
was removed. Streams that are open on a directory whose place now shows another one go on with what
they have open.
"""

from collections.abc import Iterator
from typing import NamedTuple

from overlayd.core.assembly import Assembly, Attachment, Position, provider
from overlayd.core.namespace import Namespace
from overlayd.core.nodes import Node
from overlayd.core.numbers import DIRECTORY
from overlayd.table.guest_path import GuestPath


class Outdated(NamedTuple):
    """What the kernel must forget, since it may have been told otherwise."""

    names: frozenset[tuple[int, bytes]]
    """Names, each with the number of its directory."""
    inodes: frozenset[int]
    """Directories whose attributes may have changed."""


class _Fate(NamedTuple):
    """What becomes of a directory."""

    position: Position | None
    mount: Attachment | None
    lives: bool


_LOST = _Fate(None, None, lives=False)


def remount(namespace: Namespace, assembly: Assembly) -> Outdated:
    """Let *namespace* go by *assembly*, at once for everything looked up from now on.

    Does no I/O. Attachments that *assembly* does not go on with are marked as gone. To be called
    again with the same assembly once requests that were under way have ended: what they noted
    meanwhile is settled then.
    """
    former = namespace.assembly
    present = frozenset(assembly.attachments)
    for attachment in former.attachments:
        if attachment not in present:
            attachment.end()
    if former is not assembly:
        for position in former.root.walk():
            position.gone = True
    names = set(_changed_places(namespace, former.root, assembly.root))
    settling = _Settling(namespace, assembly.root)
    settling.run()
    namespace.use(assembly)
    names.update(_changed_places(namespace, former.root, assembly.root))
    return Outdated(frozenset(names | settling.names), frozenset(settling.inodes))


def _changed_places(
    namespace: Namespace, former: Position, present: Position
) -> Iterator[tuple[int, bytes]]:
    """The names that one of the two trees decides and the other does not, or otherwise."""
    before, after = _mounts_by_path(former), _mounts_by_path(present)
    known = namespace.nodes.by_guest_path()
    for path in before.keys() | after.keys():
        if path and (path not in before or path not in after or before[path] is not after[path]):
            parent = known.get(path[:-1])
            if parent is not None:
                yield parent.number, path[-1]


def _mounts_by_path(root: Position) -> dict[GuestPath, Attachment | None]:
    return {position.path: position.mount for position in root.walk()}


class _Settling:
    """One pass over everything that is known."""

    def __init__(self, namespace: Namespace, root: Position) -> None:
        self._namespace = namespace
        self._nodes = namespace.nodes
        self._fates: dict[Node, _Fate] = {
            self._nodes.root: _Fate(root, root.mount, lives=True),
        }
        self._twins: dict[Attachment, Attachment] = {}
        self.names: set[tuple[int, bytes]] = set()
        self.inodes: set[int] = set()

    def run(self) -> None:
        """Settle every node. Fates are worked out first: they rest on how things were."""
        nodes = list(self._nodes)
        for node in nodes:
            if node.file_type == DIRECTORY:
                self._fate(node)
        for node in nodes:
            if node.file_type != DIRECTORY:
                self._settle_file(node)
        for node, fate in self._fates.items():
            self._settle_directory(node, fate)
        self._nodes.forget_former_positions()

    def _fate(self, node: Node) -> _Fate:
        """What becomes of the directory *node*; without recursion, since it may lie deep."""
        chain = []
        at: Node | None = node
        while at is not None and at not in self._fates:
            chain.append(at)
            at = at.parent
        above = _LOST if at is None else self._fates[at]
        for below in reversed(chain):
            above = self._fates[below] = _fate_below(above, below)
        return above

    def _settle_file(self, node: Node) -> None:
        for parent, name in list(node.places):
            fate = self._fate(parent)
            before = provider(parent.position, parent.mount, name)
            if fate.lives and not _is_above_mount(fate.position, name):
                now = provider(fate.position, fate.mount, name)
                if now is before and now is not None:
                    continue
            self._outdate_name(node, parent, name)
            if self._nodes.displace(node, parent, name):
                self._namespace.cache.drop(node)

    def _settle_directory(self, node: Node, fate: _Fate) -> None:
        same_mount = fate.lives and fate.mount is node.mount
        if (same_mount and fate.position is node.position) or self._nodes.is_retired(node):
            return
        if not same_mount or (fate.position is None) != (node.position is None):
            self._outdate(node)
        if same_mount:
            self._nodes.settle(node, fate.position, fate.mount)
            return
        self._namespace.cache.drop(node)
        if not fate.lives:
            self._nodes.retire(node, self._gone(node.mount))
            return
        # The place is the same and another directory is there now; streams keep what they opened.
        left = self._nodes.part(node, self._gone(node.mount))
        self._nodes.settle(node, fate.position, fate.mount)
        self._namespace.handles.move(node, left)
        self._namespace.back(node)

    def _outdate(self, node: Node) -> None:
        if node.parent is not None:
            self._outdate_name(node, node.parent, node.name)
        self.inodes.add(node.number)

    def _outdate_name(self, node: Node, parent: Node, name: bytes) -> None:
        # What lies on a slow source the kernel asks for each time, and it would wait, for ever if
        # need be and even past our end, for a lookup that is under way in the same directory.
        if not self._namespace.may_block(node):
            self.names.add((parent.number, name))

    def _gone(self, mount: Attachment | None) -> Attachment | None:
        """What a directory that is no longer shown counts as provided by."""
        if mount is None or mount.gone:
            return mount
        return self._twins.setdefault(mount, mount.gone_twin())


def _is_above_mount(position: Position | None, name: bytes) -> bool:
    """Whether *name* is above a mount point, where only a directory can be shown."""
    below = position.children.get(name) if position is not None else None
    return below is not None and below.mount is None


def _fate_below(above: _Fate, node: Node) -> _Fate:
    if not above.lives or (node.mount is not None and node.mount.gone and node.position is None):
        return _LOST
    position = above.position.children.get(node.name) if above.position is not None else None
    shown = provider(above.position, above.mount, node.name)
    if position is not None and position.mount is None:
        shown = above.mount
    if node.position is not None and position is not None:
        if position.mount is not None:
            return _Fate(position, position.mount, lives=True)
        return _Fate(position, node.mount if node.mount is shown else None, lives=True)
    is_made_up = node.mount is None
    if position is None and is_made_up:
        return _LOST if node.position is not None else _Fate(None, None, lives=True)
    if node.mount is not shown or (position is not None and position.mount is not None):
        return _LOST
    return _Fate(position, node.mount, lives=True)

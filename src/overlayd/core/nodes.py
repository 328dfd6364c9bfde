"""Nodes: what the kernel knows by number, and how many times it was told.

A node's number is at once the FUSE node id and the `st_ino` a guest sees. It is worked out from
what the node is (the guest path for directories the mount table decides, else the host's device
and inode number), so that it is the same after a remount, and it stays below 2^53, above which
JavaScript runtimes round.

This module is the only owner of lookup counts: `lend` is the one increment, `forget` the one
decrement.
"""

import itertools
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from overlayd.core.assembly import Attachment, Position, provider
from overlayd.core.numbers import (
    DIRECTORY,
    LINK,
    ROOT_NUMBER,
    TYPE,
    NodeKey,
    following,
    natural_number,
    origin,
    path_number,
    spread,
)
from overlayd.errors import eloop, estale
from overlayd.host.fs import HostStat
from overlayd.table.guest_path import GuestPath


class Place(NamedTuple):
    """One name of a node: where it can be found again."""

    parent: "Node"
    name: bytes


class Judgement(NamedTuple):
    """Why nothing in a directory may change (None: it may), and what that rests on."""

    generation: int
    """Of the host's table of mounts."""
    path: bytes
    """Where the directory lay on the host, as the kernel told."""
    reason: str | None


class Node:
    """One object of the namespace known to the kernel, or about to be."""

    __slots__ = (
        "birth_ns",
        "file_type",
        "handles",
        "judgement",
        "key",
        "lookups",
        "mount",
        "name",
        "number",
        "other_places",
        "parent",
        "position",
        "target",
        "told_ns",
    )

    def __init__(
        self,
        number: int,
        key: NodeKey | None,
        file_type: int,
        mount: Attachment | None,
        position: Position | None,
        birth_ns: int = 0,
    ) -> None:
        self.number = number
        self.key = key
        """None where the mount table, not the host, says what this is."""
        self.file_type = file_type
        self.mount = mount
        """For directories: what provides it, None for a synthetic one."""
        self.position = position
        """The position in the mount tree, for a directory at or above a mount point."""
        self.birth_ns = birth_ns
        self.lookups = 0
        self.parent: Node | None = None
        self.name = b""
        self.other_places: list[Place] | None = None
        """Further names, for the few files that have them; the newest is (parent, name)."""
        self.handles: set[int] | None = None
        """Numbers of the open handles on it."""
        self.judgement: Judgement | None = None
        """For directories: what was last found about being shown read-only elsewhere."""

        self.target: bytes | None = None
        """For symbolic links: what they store, which no call changes, once it was read; reading it
        moves the host's access time."""
        self.told_ns: int | None = 0
        """The ctime of the attributes that the kernel keeps until it hears that they changed; 0
        where it keeps none so, None where it knows itself that they are out of date. What else it
        may be, `kernel.coherence` knows."""

    @property
    def places(self) -> list[Place]:
        """Every name known of it, the most recently seen first."""
        if self.parent is None:
            return []
        newest = Place(self.parent, self.name)
        return [newest, *self.other_places] if self.other_places else [newest]

    def __repr__(self) -> str:
        return f"<Node {self.number} {self.name!r} lookups={self.lookups}>"


_MAX_PLACES = 64
_GONE = NodeKey(-1, -1)


class NodeTable:
    """All nodes the kernel may ask about, by number."""

    def __init__(self, root: Position) -> None:
        self._lock = threading.Lock()
        self._by_number: dict[int, Node] = {}
        self._by_position: dict[Position, Node] = {}
        self._displaced: dict[NodeKey, Node] = {}
        self.root = Node(ROOT_NUMBER, None, DIRECTORY, root.mount, root)
        self.root.lookups = 1
        self._by_number[ROOT_NUMBER] = self._by_position[root] = self.root

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Node]:
        with self._lock:
            return iter(list(self._by_number.values()))

    def get(self, number: int) -> Node:
        """The node with *number*; raises ESTALE for one never given out or already forgotten."""
        try:
            return self._by_number[number]
        except KeyError:
            raise estale() from None

    def peek(self, number: int) -> Node | None:
        """The node with *number*, if the kernel may know it."""
        return self._by_number.get(number)

    def oldest(self, count: int) -> list[Node]:
        """The *count* nodes that were longest not among these; they are the newest from now on."""
        with self._lock:
            nodes = list(itertools.islice(self._by_number.values(), count))
            for node in nodes:
                self._by_number[node.number] = self._by_number.pop(node.number)
            return nodes

    def find(self, key: NodeKey) -> Node | None:
        """The node for a host object, if the kernel may know it."""
        return self._find(key, natural_number(key))

    def _find(self, key: NodeKey, natural: int) -> Node | None:
        node = self._by_number.get(natural)
        if node is not None and node.key == key and node.position is None:
            return node
        return self._displaced.get(key) if self._displaced else None

    def obtain(self, key: NodeKey, status: HostStat, mount: Attachment | None) -> Node:
        """The node for a host object, made if need be; not yet lent.

        A key whose inode number was given to a new object in the meantime yields a new node, and
        the old one answers ESTALE from then on.
        """
        natural = natural_number(key)
        node = self._find(key, natural)
        if node is not None and _is_same(node, status):
            return node
        with self._lock:
            return self._obtain(key, natural, status, mount)

    def obtain_children(
        self,
        parent: Node,
        mount: Attachment,
        names: Sequence[bytes],
        found: Sequence[HostStat | None],
    ) -> list[Node | None]:
        """The nodes for what was *found* in *parent*, a directory of *mount*; not yet lent.

        None for nothing, for what lies on another file system than *parent*, and for what cannot
        be there as far as is known here (ELOOP).
        """
        assert parent.key is not None
        own_dev, seed = parent.key.dev, mount.seed
        of_files, of_directories = origin(0, own_dev), origin(seed, own_dev)
        by_number = self._by_number
        nodes: list[Node | None] = []
        with self._lock:
            for name, status in zip(names, found, strict=True):
                if status is None or status[0] != own_dev:
                    nodes.append(None)
                    continue
                _, ino, host_mount, birth_ns, mode = status[:5]
                file_type = mode & TYPE
                if file_type == DIRECTORY:
                    natural, key = spread(ino, of_directories), (own_dev, ino, seed, host_mount)
                else:
                    scope = -parent.number if file_type == LINK else 0
                    natural, key = spread(ino, of_files), (own_dev, ino, scope, 0)
                node = by_number.get(natural)
                if (  # what `_obtain` asks, without calling it for each that is known
                    node is None
                    or node.key != key
                    or node.birth_ns != birth_ns
                    or node.file_type != file_type
                    or node.position is not None
                ):
                    node = self._obtain(NodeKey(*key), natural, status, mount)
                is_placed = node.parent is parent and node.name == name
                nodes.append(node if is_placed or self._try_to_place(node, parent, name) else None)
        return nodes

    def _obtain(
        self, key: NodeKey, natural: int, status: HostStat, mount: Attachment | None
    ) -> Node:
        node = self._find(key, natural)
        if node is not None:
            if _is_same(node, status):
                return node
            self._retire(node)
        number = natural
        while number in self._by_number:
            number = following(number)
        file_type = status.file_type
        provider = mount if file_type == DIRECTORY else None
        node = Node(number, key, file_type, provider, None, status.birth_ns)
        self._by_number[number] = node
        if number != natural:
            self._displaced[key] = node
        return node

    def at(self, position: Position) -> Node | None:
        """The node at *position*, if the kernel may know it."""
        return self._by_position.get(position)

    def obtain_position(self, position: Position, mount: Attachment | None) -> Node:
        """The directory at a position of the mount tree; not yet lent.

        Raises ESTALE where a request that was overtaken by another table comes upon one of the
        former tree.
        """
        with self._lock:
            node = self._by_position.get(position)
            if node is None:
                if position.gone:
                    raise estale()
                number = path_number(position.path)
                while number in self._by_number:
                    number = following(number)
                node = Node(number, None, DIRECTORY, mount, position)
                self._by_number[number] = self._by_position[position] = node
            return node

    def obtain_empty(self, parent: Node, name: bytes) -> Node:
        """The empty directory that stands where overlayd's own target lies in a source."""
        with self._lock:
            number = path_number((b"%d" % parent.number, b"", name))
            node = self._by_number.get(number)
            while node is not None and (node.parent, node.name) != (parent, name):
                number = following(number)
                node = self._by_number.get(number)
            if node is None:
                node = Node(number, None, DIRECTORY, None, None)
                self._by_number[number] = node
            return node

    def lend(self, node: Node, count: int = 1) -> None:
        """Hand *count* references over to the kernel.

        A thread may have found *node* just before the kernel gave the last reference back; it is
        put in again then, or whatever has taken its number meanwhile is lent in its place.
        """
        with self._lock:
            if self._by_number.get(node.number) is node:
                node.lookups += count
            else:
                self._lend(node, count)

    def lend_listed(self, taken: Iterable[Node], refused: Iterable[Node]) -> None:
        """Hand a reference to each of *taken* over; drop those of *refused* that nobody uses."""
        with self._lock:
            by_number = self._by_number
            for node in taken:
                if by_number.get(node.number) is node:
                    node.lookups += 1
                else:
                    self._lend(node, 1)
            for node in refused:
                self._drop_if_unused(node)

    def _lend(self, node: Node, count: int) -> None:
        held = self._by_number.get(node.number)
        if held is None:
            held = self._by_number[node.number] = node
            if node.position is not None:
                self._by_position.setdefault(node.position, node)
            elif node.key is not None and node.key != _GONE:
                self._note_displaced(node, node.key)
        held.lookups += count

    @contextmanager
    def lending(self, node: Node) -> Iterator[None]:
        """Lend *node* once the block has succeeded; where it fails, nobody was told of it."""
        try:
            yield
        except BaseException:
            self.discard_if_unused(node)
            raise
        self.lend(node)

    def forget(self, number: int, count: int) -> Node | None:
        """Take *count* references back; the node that is gone with the last, if it is."""
        with self._lock:
            node = self._by_number.get(number)
            if node is None or number == ROOT_NUMBER:
                return None
            node.lookups -= count
            if node.lookups < 0:
                raise AssertionError(f"{node} was forgotten more often than it was lent")
            return self._drop_if_unused(node)

    def discard_if_unused(self, node: Node) -> bool:
        """Drop a node that was obtained and then not lent; whether it was dropped."""
        with self._lock:
            return self._drop_if_unused(node) is not None

    # -- names ----------------------------------------------------------------------------------

    def place(self, node: Node, parent: Node, name: bytes) -> None:
        """Note that *node* was seen as *name* in *parent*, most recently. Raises ELOOP."""
        if node.parent is parent and node.name == name:
            return
        with self._lock:
            self._place(node, parent, name)

    def _try_to_place(self, node: Node, parent: Node, name: bytes) -> bool:
        try:
            self._place(node, parent, name)
        except OSError:
            return False
        return True

    def _place(self, node: Node, parent: Node, name: bytes) -> None:
        if node.parent is not None and node.file_type == DIRECTORY:
            _refuse_circle(node, parent)
        elif node.parent is not None:
            others = node.other_places or []
            others = [p for p in others if p.parent is not parent or p.name != name]
            others.insert(0, Place(node.parent, node.name))
            node.other_places = others[:_MAX_PLACES]
        node.parent, node.name = parent, name

    def displace(self, node: Node, parent: Node, name: bytes) -> bool:
        """Note that *node* is no longer *name* in *parent*; whether no name of it is left."""
        with self._lock:
            return self._displace(node, parent, name)

    def _displace(self, node: Node, parent: Node, name: bytes) -> bool:
        if node.other_places is not None or node.parent is not parent or node.name != name:
            left = [p for p in node.places if p.parent is not parent or p.name != name]
            if left:
                node.parent, node.name = left[0]
                node.other_places = left[1:] or None
                return False
        # The parent of a removed directory still answers for its `..`.
        if node.file_type != DIRECTORY:
            node.parent, node.name = None, b""
        node.other_places = None
        return True

    def carry(self, node: Node, old: tuple[Node, bytes], new: tuple[Node, bytes]) -> None:
        """Note that *node* was moved from *old*, a parent and a name there, to *new*.

        Raises ELOOP.
        """
        with self._lock:
            is_file = node.file_type != DIRECTORY
            if is_file and node.other_places is None and (node.parent, node.name) == old:
                node.parent, node.name = new
                return
            if (node.parent, node.name) != new:
                self._place(node, *new)
            if is_file:
                self._displace(node, *old)

    def rekey(self, node: Node, key: NodeKey) -> None:
        """Give *node* another key and leave its number: a symbolic link changed its directory."""
        with self._lock:
            self._unkey(node)
            node.key = key
            self._note_displaced(node, key)

    # -- another table --------------------------------------------------------------------------

    def settle(self, node: Node, position: Position | None, mount: Attachment | None) -> None:
        """Let *node*, a directory the kernel knows, be at *position* of another table's tree."""
        with self._lock:
            node.position, node.mount = position, mount
            if position is not None:
                self._by_position[position] = node
            elif node.key is not None:
                self._note_displaced(node, node.key)

    def retire(self, node: Node, mount: Attachment | None) -> None:
        """Let *node*, a directory, stand for nothing any more, until the kernel forgets it."""
        with self._lock:
            self._retire(node)
            node.position, node.mount = None, mount

    def is_retired(self, node: Node) -> bool:
        """Whether *node* stands for nothing any more."""
        return node.key == _GONE

    def part(self, node: Node, mount: Attachment | None) -> Node:
        """What *node* stood for so far, apart from it, for those who have it open."""
        left = Node(node.number, _GONE, DIRECTORY, mount, None)
        left.parent, left.name = node.parent, node.name
        return left

    def forget_former_positions(self) -> None:
        """Let go of the positions of a former tree, once every node is settled."""
        with self._lock:
            nodes = set(self._by_position.values())
            self._by_position = {n.position: n for n in nodes if n.position is not None}

    def by_guest_path(self) -> dict[GuestPath, Node]:
        """The nodes at positions of the mount tree."""
        with self._lock:
            return {position.path: node for position, node in self._by_position.items()}

    # -- inside ---------------------------------------------------------------------------------

    def _note_displaced(self, node: Node, key: NodeKey) -> None:
        if node.number != natural_number(key):
            self._displaced[key] = node

    def _unkey(self, node: Node) -> None:
        if node.key is not None and self._displaced.get(node.key) is node:
            del self._displaced[node.key]

    def _retire(self, node: Node) -> None:
        self._unkey(node)
        node.key = _GONE

    def _drop_if_unused(self, node: Node) -> Node | None:
        if node.lookups or self._by_number.get(node.number) is not node:
            return None
        del self._by_number[node.number]
        if node.position is not None and self._by_position.get(node.position) is node:
            del self._by_position[node.position]
        self._unkey(node)
        return node


def provider_of(node: Node) -> Attachment | None:
    """The preopen that provides *node* under its newest name, None for the synthetic."""
    if node.file_type == DIRECTORY:
        return node.mount
    parent = node.parent
    if parent is None:  # removed while it is open
        return None
    if parent.position is None:
        return parent.mount
    return provider(parent.position, parent.mount, node.name)


def _is_same(node: Node, status: HostStat) -> bool:
    """Whether the inode number still means what it meant: numbers are used again."""
    return node.file_type == status.file_type and node.birth_ns == status.birth_ns


def _refuse_circle(node: Node, parent: Node) -> None:
    """Raise ELOOP where the directory *node*, as known here, lies above *parent*.

    Both were moved behind our back, by the host or through another preopen, and what is known of
    them is partly out of date. The kernel answers ELOOP too where a lookup contradicts its tree.
    """
    at: Node | None = parent
    while at is not None:
        if at is node:
            raise eloop()
        at = at.parent

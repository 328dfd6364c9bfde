"""What an open directory lists: names and attributes, some at a time, each counted once taken.

Nearly all that is listed are files and directories of a local source that nothing hides. For those
the host is asked, and nodes are obtained, for many names at once; it is what `Namespace.child` and
`adopt` would come to for each of them, and all others still go there.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from overlayd.core.attributes import Attributes
from overlayd.core.names import Names
from overlayd.core.namespace import Namespace, Where
from overlayd.core.nodes import Node
from overlayd.core.numbers import LINK
from overlayd.core.types import Attrs, WouldBlock
from overlayd.host import fs

_AT_ONCE = 26
"""Entries that are looked at together: one more than go into a reply of 4 KiB, for which older
kernels ask, so that little is asked of the host in vain."""

_SIZE = fs.HostStat._fields.index("size")
_new = tuple.__new__  # takes half as long as calling a NamedTuple, and there are many


class Entry(NamedTuple):
    """One entry of a listing; *cookie* is where the next call goes on."""

    name: bytes
    attrs: Attrs
    cookie: int
    node: Node | None = None
    """What is lent once the entry is taken; None for `.` and `..`, which never are."""
    is_plain: bool = False
    """Whether it is known to be a file or directory of a local source, which has no other name
    that is known of, and is no mount point."""


def _cookie(name: bytes) -> int:
    """Where a listing goes on after *name*: from 3 on, below 2**63.

    The same in every stream, whatever else is in the directory: where the kernel keeps listings,
    a stream may have been told its beginning out of what was kept of another one.
    """
    return (hash(name) >> 2) + (1 << 61) + 3


class Listings:
    """Everything that takes an open directory."""

    def __init__(self, namespace: Namespace, attributes: Attributes, names: Names) -> None:
        self._namespace = namespace
        self._names = names
        self._attributes = attributes

    def entries(self, number: int, start: int) -> Iterator[list[Entry]]:
        """The entries of an open directory from cookie *start* on; `.` and `..` come first.

        Names are those of the moment the listing was begun (*start* 0, or first in this stream):
        none comes twice, and none is lost that was there throughout. Each list is to be settled
        before the next is asked for.
        """
        space = self._namespace
        handle = space.handles.get(number)
        where = self._directory(handle.node, handle.fd)
        if start == 0 or handle.listing is None:
            fd = self._names.readable(number)
            host_names = [] if fd is None else fs.list_names(fd)
            handle.listing = sorted(space.names(where, host_names), key=hash)  # that is, by cookie
        listing = handle.listing
        if start <= 0:
            yield [Entry(b".", self._attributes.of(handle.node), 1)]
        if start <= 1:
            yield [Entry(b"..", self._parent_attributes(handle.node), 2)]
        begin = bisect_right(listing, start, key=_cookie)
        for first in range(begin, len(listing), _AT_ONCE):
            names = listing[first : first + _AT_ONCE]
            entries: list[Entry] = []
            try:
                self._describe(handle.node, where, names, entries)
            except WouldBlock:
                if entries:
                    yield entries
                raise
            yield entries

    def settle(self, entries: Sequence[Entry], taken: int) -> None:
        """The kernel took the first *taken* of *entries*, and with each a reference to its node.

        The others did not fit; the next call begins with them.
        """
        nodes = [entry[3] for entry in entries]
        self._namespace.nodes.lend_listed(
            [node for node in nodes[:taken] if node is not None],
            [node for node in nodes[taken:] if node is not None],
        )

    def _directory(self, node: Node, fd: fs.Fd | None) -> Where:
        """Where an open stream's names lead: to what is open, even if its own name is gone."""
        if fd is None:
            return self._namespace.where(node)
        self._namespace.consent_to_reach(node)
        return Where(node.position, node.mount, fd)

    def _parent_attributes(self, node: Node) -> Attrs:
        """For `..`: of the directory above in the namespace; `/` is its own parent."""
        try:
            return self._attributes.of(node.parent or node)
        except OSError:  # removed meanwhile; a listing of what is still open goes on
            return self._attributes.of(node)

    def _describe(
        self, directory: Node, where: Where, names: list[bytes], entries: list[Entry]
    ) -> None:
        """Add to *entries* what *names* are. Raises WouldBlock at one that has to be waited for."""
        found, nodes = self._plain(directory, where, names)
        for index, name in enumerate(names):
            status, node = found[index], nodes[index]
            if node is None or node.other_places is not None or node.file_type == LINK:
                try:
                    described = self._describe_one(directory, where, name, status, node)
                except WouldBlock:
                    unused = [left for left in nodes[index:] if left is not None]
                    self._namespace.nodes.lend_listed((), unused)
                    raise
                if described is not None:
                    entries.append(Entry(name, described[1], _cookie(name), described[0]))
            elif status is not None:
                attrs = _new(Attrs, (node.number, status, status[_SIZE], False))
                entries.append(_new(Entry, (name, attrs, _cookie(name), node, True)))

    def _describe_one(
        self,
        directory: Node,
        where: Where,
        name: bytes,
        status: fs.HostStat | None,
        node: Node | None,
    ) -> tuple[Node, Attrs] | None:
        """None for what is gone since the listing was begun, or not to be looked at."""
        space = self._namespace
        if node is None:
            try:
                found = space.child(where, name)
                status, node = found.status, space.adopt(directory, name, found)
            except OSError:
                return None
        try:
            return node, self._attributes.describe(node, status)
        except OSError:
            space.nodes.discard_if_unused(node)
            return None

    def _plain(
        self, directory: Node, where: Where, names: list[bytes]
    ) -> tuple[Sequence[fs.HostStat | None], Sequence[Node | None]]:
        """Status and node of each of *names* in *directory*, which is *where*; not yet lent.

        No node for what may need more than one look at the host, or what the mount table decides.
        """
        space, mount = self._namespace, where.mount
        if where.fd is None or mount is None or mount.overlaps or not space.is_plain(directory):
            return [None] * len(names), [None] * len(names)
        found = fs.stat_children(where.fd, names)
        if where.position is not None and where.position.children:
            decided = where.position.children
            found = [None if n in decided else s for n, s in zip(names, found, strict=True)]
        return found, space.nodes.obtain_children(directory, mount, names, found)

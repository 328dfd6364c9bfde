"""What is attached where: the mount table together with its opened sources.

The table is immutable and its preopens have indexes; what the core remembers for longer than one
request refers to an `Attachment` instead, which outlives a change of the table: a preopen that
stays is the same attachment before and after, and one that was taken away says so itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from overlayd.host import fs
from overlayd.host.sources import Source, find_overlapping
from overlayd.table.guest_path import GuestPath
from overlayd.table.mount_tree import Branch, MountTable
from overlayd.table.preopen import Preopen

try:  # all that hashlib adds is OpenSSL, which every daemon would hold a megabyte of
    from _blake2 import blake2b
except ImportError:
    from hashlib import blake2b


class Attachment:
    """A source at its mount point."""

    __slots__ = ("gone", "overlaps", "read_only", "seed", "source")

    def __init__(self, source: Source) -> None:
        self.seed = path_seed(b"mount", source.preopen.guest)
        """Tells the directories of one mount from those of another, the same after a remount."""
        self.source = source
        self.read_only = source.preopen.read_only
        self.overlaps = False
        """Whether another source shares a directory with this one: equal, above or below it."""
        self.gone = False
        """Whether it was taken out of the namespace; nothing is looked up in it any more."""

    @property
    def preopen(self) -> Preopen:
        """The entry it was made for."""
        return self.source.preopen

    @property
    def fd(self) -> fs.Fd:
        """The source's own descriptor."""
        return self.source.fd

    @property
    def stat(self) -> fs.HostStat:
        """The source's status when it was opened."""
        return self.source.stat

    def gone_twin(self) -> "Attachment":
        """What a directory of this source counts as provided by once it is no longer shown."""
        twin = Attachment(self.source)
        twin.read_only = True
        twin.end()
        return twin

    def end(self) -> None:
        """Note that nothing is looked up in it any more.

        An open stream still lists what it holds, apart from the same directories where they are
        shown anew.
        """
        self.gone = True
        self.seed = path_seed(b"gone", self.source.preopen.guest)

    def still_is(self, source: Source) -> bool:
        """Whether *source* is the same host object, reached through the same host mount."""
        mine, other = self.source.stat, source.stat
        same_object = (mine.dev, mine.ino, mine.mount_id) == (other.dev, other.ino, other.mount_id)
        return same_object and self.source.preopen.guest == source.preopen.guest

    def renew(self, source: Source) -> None:
        """Take over what the new table says of the same source."""
        self.source = source
        self.read_only = source.preopen.read_only


class Position:
    """A guest path at or above a mount point; equal only to itself."""

    __slots__ = ("children", "gone", "mount", "path")

    def __init__(
        self, path: GuestPath, mount: Attachment | None, children: Mapping[bytes, "Position"]
    ) -> None:
        self.path = path
        self.mount = mount
        """What is attached here, None above a mount point."""
        self.children = children
        self.gone = False
        """Whether another table is in force; nothing comes to be here any more."""

    def walk(self) -> Iterator["Position"]:
        """This one and all below it."""
        pending = [self]
        while pending:
            position = pending.pop()
            yield position
            pending.extend(position.children.values())


def provider(position: Position | None, mount: Attachment | None, name: bytes) -> Attachment | None:
    """What provides *name* in a directory at *position*, if at one, that *mount* provides."""
    below = position.children.get(name) if position is not None else None
    return below.mount if below is not None else mount


@dataclass(frozen=True, slots=True, eq=False)
class Assembly:
    """One table and what is attached for it; equal only to itself."""

    table: MountTable
    sources: tuple[Source, ...]
    """In the order of the table, as are *attachments*."""
    attachments: tuple[Attachment, ...]
    root: Position
    read_only: tuple[Source, ...]
    """Those of the sources that are attached read-only."""


class Survey(NamedTuple):
    """A table, its opened sources, and what had to be asked of the host about them."""

    table: MountTable
    sources: tuple[Source, ...]
    overlapping: frozenset[int]
    """The indexes of sources that share a directory with another."""


def survey(table: MountTable, sources: Sequence[Source]) -> Survey:
    """Find out what `assemble` needs to know; may wait for the sources."""
    return Survey(table, tuple(sources), find_overlapping(sources))


Kept = Mapping[int, Attachment]
"""Attachments of the former table by the index of their preopen in the new one."""


def assemble(wanted: Survey, kept: Kept) -> Assembly:
    """Attach the sources as the table says; *kept* are the attachments that stay."""
    table, sources, overlapping = wanted
    attachments = []
    for index, source in enumerate(sources):
        attachment = kept.get(index) or Attachment(source)
        attachment.renew(source)
        attachment.overlaps = index in overlapping
        attachments.append(attachment)
    return Assembly(
        table,
        sources,
        tuple(attachments),
        _positions(table.root, attachments),
        tuple(source for source in sources if source.preopen.read_only),
    )


def find_kept(former: Assembly, sources: Sequence[Source]) -> dict[int, Attachment]:
    """Which attachments of *former* the new table's *sources* go on with."""
    by_guest = {attachment.preopen.guest: attachment for attachment in former.attachments}
    kept = {}
    for index, source in enumerate(sources):
        before = by_guest.get(source.preopen.guest)
        if before is not None and before.still_is(source):
            kept[index] = before
    return kept


def _positions(root: Branch, attachments: Sequence[Attachment]) -> Position:
    """The tree of positions that mirrors the table's; without recursion, since it may be deep."""
    made: dict[GuestPath, Position] = {}
    for branch in reversed(list(root.walk())):  # children before their parents
        mount = None if branch.mount is None else attachments[branch.mount]
        children = {name: made.pop(below.path) for name, below in branch.children.items()}
        made[branch.path] = Position(branch.path, mount, children)
    return made[()]


def path_seed(kind: bytes, path: GuestPath) -> int:
    """A positive number of 63 bits that stands for *path*."""
    digest = blake2b(b"/".join(path), digest_size=8, person=kind).digest()
    return int.from_bytes(digest, "little") >> 1 | 1

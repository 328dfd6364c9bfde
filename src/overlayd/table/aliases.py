"""Which parts of which source the namespace shows, and where two preopens show one directory.

Sources are compared by location: the file system, and the path inside it. Two host paths can be
one directory (a bind mount), and one path can be two directories in turn; a location is what the
kernel itself calls the place (proc(5), mountinfo). Nothing here looks at the host.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from overlayd.errors import UsageError
from overlayd.table.guest_path import GuestPath, show
from overlayd.table.mount_tree import Branch, MountTable
from overlayd.table.preopen import Preopen

HostPath = tuple[bytes, ...]
"""Components of a path inside one file system."""


class Location(NamedTuple):
    """A place on the host: device number of the file system's superblock, path inside it."""

    superblock: int
    path: HostPath


@dataclass(frozen=True, slots=True)
class Part:
    """A subtree of a file system that one preopen shows: its source, or a host mount below it."""

    preopen: int
    """Index into the table."""
    location: Location
    guest: GuestPath
    """Where the namespace shows its root."""
    branch: Branch | None
    """The position of `guest` in the mount tree; None where nothing below it masks."""
    covered: frozenset[HostPath] = frozenset()
    """Paths below the root that a host mount covers: what lies under it is another part."""
    file: tuple[int, int] | None = None
    """(dev, ino) where it is a single file and not a subtree."""

    def shows(self, location: Location) -> GuestPath | None:
        """The guest path at which this part shows the directory at *location*, if it does."""
        if location.superblock != self.location.superblock:
            return None
        depth = len(self.location.path)
        if location.path[:depth] != self.location.path:
            return None
        below = location.path[depth:]
        if self.file is not None and below:
            return None
        if self.covered and any(below[:n] in self.covered for n in range(1, len(below) + 1)):
            return None
        if is_masked(self.branch, below):
            return None
        return self.guest + below


def is_masked(branch: Branch | None, below: HostPath) -> bool:
    """Whether a mount point of the table lies on the way from *branch* to *below*, or is it."""
    for name in below:
        branch = branch.children.get(name) if branch is not None else None
        if branch is None:
            return False
        if branch.mount is not None:
            return True
    return False


def branch_at(table: MountTable, path: GuestPath) -> Branch | None:
    """The position of *path* in the mount tree, None where the table decides nothing below it."""
    branch: Branch | None = table.root
    for name in path:
        branch = branch.children.get(name) if branch is not None else None
    return branch


@dataclass(frozen=True, slots=True)
class Alias:
    """One host directory (or file) that the namespace shows at two guest paths."""

    first: GuestPath
    second: GuestPath
    first_preopen: Preopen
    second_preopen: Preopen

    is_file: bool

    @property
    def is_conflict(self) -> bool:
        """Whether the two disagree on read-only."""
        return self.first_preopen.read_only != self.second_preopen.read_only

    def conflict(self) -> str:
        """What the two disagree on, in words."""
        writable, read_only = self.first, self.second
        if self.first_preopen.read_only:
            writable, read_only = read_only, writable
        return (
            f"{show(writable)} is writable, but the same host {self._kind} is shown read-only"
            f" at {show(read_only)}"
        )

    def sentence(self) -> str:
        """The alias and its effect, in words an operator understands."""
        if self.is_conflict:
            return f"{self.conflict()}; it will be read-only"
        both = "read-only" if self.first_preopen.read_only else "writable"
        return f"{show(self.first)} and {show(self.second)} are one host {self._kind}, {both} both"

    @property
    def _kind(self) -> str:
        return "file" if self.is_file else "directory"

    def advice(self) -> str:
        """What would mend it."""
        read_only = self.first_preopen if self.first_preopen.read_only else self.second_preopen
        writable = self.second_preopen if self.first_preopen.read_only else self.first_preopen
        return (
            f"give {writable.origin} and {read_only.origin} the same mode,"
            " or mask one of the places"
        )


class PartIndex:
    """Parts by the location of their roots."""

    def __init__(self, parts: Iterable[Part]) -> None:
        self._by_location: dict[Location, list[Part]] = {}
        depths: dict[int, set[int]] = {}
        for part in parts:
            self._by_location.setdefault(part.location, []).append(part)
            depths.setdefault(part.location.superblock, set()).add(len(part.location.path))
        # Only depths at which a root lies are tried: what is looked for may be thousands deep.
        self._depths = {superblock: sorted(found) for superblock, found in depths.items()}

    def around(self, location: Location) -> Iterator[Part]:
        """The parts whose root is at or above *location*, the topmost first."""
        superblock, path = location
        for depth in self._depths.get(superblock, ()):
            if depth > len(path):
                return
            yield from self._by_location.get(Location(superblock, path[:depth]), ())


def find_aliases(table: MountTable, parts: Sequence[Part]) -> list[Alias]:
    """Every place that two preopens show: the root of one of them, seen through the other."""
    index = PartIndex(parts)
    found: dict[frozenset[GuestPath], Alias] = {}
    for inner in parts:
        for outer in index.around(inner.location):
            seen_at = outer.shows(inner.location)
            if outer.preopen == inner.preopen or seen_at is None:
                continue
            one, other = sorted(((seen_at, outer.preopen), (inner.guest, inner.preopen)))
            preopens = table.preopens[one[1]], table.preopens[other[1]]
            alias = Alias(one[0], other[0], *preopens, inner.file is not None)
            found.setdefault(frozenset((seen_at, inner.guest)), alias)
    return sorted(found.values(), key=lambda alias: (alias.first, alias.second))


def refuse_conflicts(aliases: Iterable[Alias]) -> None:
    """Raise UsageError for the first alias whose two preopens disagree (`--alias refuse`)."""
    for alias in aliases:
        if alias.is_conflict:
            raise UsageError(f"--alias refuse: {alias.conflict()}; {alias.advice()}")

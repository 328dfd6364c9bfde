"""The mount table as an immutable tree of guest paths.

The tree answers one question, for lookups and listings alike: which names in a directory of the
namespace does the table decide, and which are the host's? It never looks at the host.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType

from overlayd.errors import UsageError
from overlayd.table.guest_path import GuestPath, show
from overlayd.table.preopen import Preopen


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """A guest path at or above a mount point; equal only to itself."""

    path: GuestPath
    mount: int | None
    """Index into `MountTable.preopens` where this is a mount point, else None."""
    children: Mapping[bytes, "Branch"] = field(repr=False)

    def walk(self) -> Iterator["Branch"]:
        """This branch and all below it, parents first, siblings in the order of their names."""
        pending = [self]
        while pending:
            branch = pending.pop()
            yield branch
            pending.extend(branch.children[name] for name in sorted(branch.children, reverse=True))


@dataclass(frozen=True, slots=True)
class MountTable:
    """All preopens of one mount, ordered by guest path, and the tree they form."""

    preopens: tuple[Preopen, ...]
    root: Branch

    def __reduce__(self) -> tuple[object, ...]:
        """A daemon gets it by a pickle, which a tree of read-only views does not fit: grow anew."""
        return build_table, (self.preopens,)

    def enclosing(self, index: int) -> int | None:
        """The mount point that the preopen at *index* is attached on, None for synthetic `/`."""
        return self.provider_above(self.preopens[index].guest)

    def provider_above(self, path: GuestPath) -> int | None:
        """The nearest mount point above *path*, a path of the tree; None where all is synthetic."""
        found = None
        branch = self.root
        for name in path:
            found = branch.mount if branch.mount is not None else found
            branch = branch.children[name]
        return found


def build_table(preopens: Iterable[Preopen]) -> MountTable:
    """Order *preopens* and build their tree; the order in which they come does not matter.

    Raises UsageError where there are none, or two share one guest path.
    """
    ordered = tuple(sorted(preopens, key=lambda preopen: preopen.guest))
    if not ordered:
        raise UsageError(
            "no preopens: give at least one --dir HOST::GUEST, or a --config file with a [[dir]]"
        )
    for first, second in pairwise(ordered):
        if first.guest == second.guest:
            raise UsageError(
                f"{first.origin} and {second.origin}: both are attached at {show(first.guest)};"
                " keep one of them, or give the other another guest path"
            )
    return MountTable(preopens=ordered, root=_grow(ordered))


def _grow(ordered: tuple[Preopen, ...]) -> Branch:
    """Build the tree from its leaves, without recursion: guest paths may be very deep."""
    mounts = {preopen.guest: index for index, preopen in enumerate(ordered)}
    paths = {path[:depth] for path in mounts for depth in range(len(path) + 1)}
    below: dict[GuestPath, dict[bytes, Branch]] = {}
    for path in sorted(paths, key=len, reverse=True):
        children = MappingProxyType(below.pop(path, {}))
        branch = Branch(path=path, mount=mounts.get(path), children=children)
        if path:
            below.setdefault(path[:-1], {})[path[-1]] = branch
    return branch

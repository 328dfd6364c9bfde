"""What a table amounts to, as data: for `check`, its JSON, and the people who read either."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from overlayd.table.aliases import Alias
from overlayd.table.guest_path import GuestPath, printable, show
from overlayd.table.mount_tree import Branch, MountTable
from overlayd.table.preopen import Preopen

_KINDS = {stat.S_IFDIR: "directory", stat.S_IFREG: "file", stat.S_IFLNK: "symbolic link"}


@dataclass(frozen=True, slots=True)
class Covered:
    """What a mount point finds in the source it is attached on."""

    owner: int
    """Index of the preopen that provides the place."""
    path: GuestPath
    """The place inside that source."""
    present: int
    """How many leading components of *path* the source really has."""
    file_type: int
    """S_IFMT of what is masked, 0 where there is nothing."""
    link_target: str | None
    """Where a symbolic link is masked: what it points to."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """One mount point that lies on another source, and what becomes of the place."""

    guest: str
    around: str
    masks: str | None
    """The host path that can no longer be reached; None where there is nothing to mask."""
    kind: str | None
    synthetic: tuple[str, ...]
    """Guest paths that exist only because of this mount point."""
    warning: str | None

    def sentence(self) -> str:
        """The overlap in words."""
        if self.masks is not None:
            return f"{self.guest} masks the {self.kind} {self.masks}"
        return f"{self.guest} is made up: {self.around} has nothing there"


def find_overlaps(table: MountTable, covered: Sequence[Covered | None]) -> list[Overlap]:
    """Every mount point that lies on another source, in the order of the table."""
    return [
        _overlap(table.preopens[index], table.preopens[below.owner], below)
        for index, below in enumerate(covered)
        if below is not None
    ]


def _overlap(preopen: Preopen, around: Preopen, below: Covered) -> Overlap:
    guest = show(preopen.guest)
    masks = kind = warning = None
    if below.file_type:
        masks = printable(around.host.rstrip("/")) + show(below.path)
        kind = _KINDS.get(below.file_type, "special file")
    if below.link_target is not None:
        warning = (
            f"{guest} masks only the symbolic link {masks};"
            f" what it points to ({below.link_target}) stays visible where it is"
        )
    missing = range(below.present + 1, len(below.path) + 1)
    synthetic = tuple(show(around.guest + below.path[:depth]) for depth in missing)
    return Overlap(guest, printable(around.host), masks, kind, synthetic, warning)


def tree_lines(table: MountTable) -> Iterator[str]:
    """The merged table as a tree, a line each: guest name, mode, source."""
    rows = list(_rows(table.root, "", ""))
    width = max(len(label) for label, _ in rows)
    for label, branch in rows:
        if branch.mount is None:
            made_up = table.provider_above(branch.path) is None
            note = "synthetic" if made_up else "synthetic unless the source around it has it"
            yield f"{label:<{width}}  --  ({note})"
        else:
            preopen = table.preopens[branch.mount]
            yield f"{label:<{width}}  {preopen.options}  {printable(preopen.host)}"


def _rows(root: Branch, lead: str, stem: str) -> Iterator[tuple[str, Branch]]:
    pending = [(root, lead, stem, "/")]
    while pending:
        branch, lead, stem, name = pending.pop()
        yield lead + name, branch
        names = sorted(branch.children)
        for position, child in reversed(list(enumerate(names))):
            last = position == len(names) - 1
            pending.append(
                (
                    branch.children[child],
                    stem + ("└── " if last else "├── "),
                    stem + ("    " if last else "│   "),
                    printable(os.fsdecode(child)),
                )
            )


def warnings(overlaps: Sequence[Overlap], aliases: Sequence[Alias]) -> list[str]:
    """What an operator may not have meant."""
    found = [overlap.warning for overlap in overlaps if overlap.warning is not None]
    return found + [alias.sentence() for alias in aliases if alias.is_conflict]


def as_json(
    table: MountTable, overlaps: Sequence[Overlap], aliases: Sequence[Alias]
) -> dict[str, Any]:
    """The whole report for programs; stable keys, paths as strings."""
    return {
        "preopens": [
            {"guest": show(p.guest), "host": printable(p.host), "mode": p.options}
            for p in table.preopens
        ],
        "overlaps": [
            {
                "guest": o.guest,
                "around": o.around,
                "masks": o.masks,
                "kind": o.kind,
                "synthetic": list(o.synthetic),
            }
            for o in overlaps
        ],
        "aliases": [
            {
                "first": show(a.first),
                "second": show(a.second),
                "kind": "file" if a.is_file else "directory",
                "conflict": a.is_conflict,
                "effect": a.sentence(),
            }
            for a in aliases
        ],
        "warnings": warnings(overlaps, aliases),
    }

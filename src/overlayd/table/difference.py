"""What changed between two tables, in words: for `overlayd reload`."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from overlayd.table.guest_path import GuestPath, show
from overlayd.table.mount_tree import MountTable
from overlayd.table.preopen import Preopen


@dataclass(frozen=True, slots=True)
class Difference:
    """Preopens that came, went or changed, and settings that did."""

    added: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    changed: list[tuple[str, str]] = field(default_factory=list)
    """Before and after, where the guest path stayed."""
    replaced: list[str] = field(default_factory=list)
    """Entries that stayed as they were, but whose HOST now is another directory or file."""
    settings: list[tuple[str, str, str]] = field(default_factory=list)
    """Name, before, after."""
    remount_needed: list[str] = field(default_factory=list)
    """Settings that changed and take effect only with the next mount."""

    def lines(self) -> Iterator[str]:
        """A line for each change."""
        yield from (f"added {entry}" for entry in self.added)
        yield from (f"removed {entry}" for entry in self.removed)
        yield from (f"changed {before} to {after}" for before, after in self.changed)
        yield from (
            f"{entry}: its host path holds another one now, which shows" for entry in self.replaced
        )
        yield from (f"{name}: {before}, now {after}" for name, before, after in self.settings)
        yield from (f"{name}: takes effect with the next mount" for name in self.remount_needed)

    def describe(self) -> list[str]:
        """The same, and something to say where nothing changed."""
        return list(self.lines()) or ["nothing changed"]

    @classmethod
    def from_json(cls, answer: dict[str, Any]) -> "Difference":
        """What `as_json` was made from."""
        return cls(
            answer["added"],
            answer["removed"],
            [(change["before"], change["after"]) for change in answer["changed"]],
            answer["replaced"],
            [(each["name"], each["before"], each["after"]) for each in answer["settings"]],
            answer["remount_needed"],
        )

    def as_json(self) -> dict[str, Any]:
        """The same for programs; stable keys."""
        return {
            "added": self.added,
            "removed": self.removed,
            "changed": [{"before": before, "after": after} for before, after in self.changed],
            "replaced": self.replaced,
            "settings": [
                {"name": name, "before": before, "after": after}
                for name, before, after in self.settings
            ],
            "remount_needed": self.remount_needed,
        }


def compare_tables(
    before: MountTable, after: MountTable, same_source: Collection[GuestPath]
) -> Difference:
    """What *after* has otherwise; *same_source* are the guest paths whose source stayed."""
    old, new = _by_guest(before), _by_guest(after)
    difference = Difference()
    for guest in sorted(old.keys() | new.keys()):
        if guest not in old:
            difference.added.append(str(new[guest]))
        elif guest not in new:
            difference.removed.append(str(old[guest]))
        elif str(old[guest]) != str(new[guest]):
            difference.changed.append((str(old[guest]), str(new[guest])))
        elif guest not in same_source:
            difference.replaced.append(show(guest))
    return difference


def _by_guest(table: MountTable) -> dict[GuestPath, Preopen]:
    return {preopen.guest: preopen for preopen in table.preopens}

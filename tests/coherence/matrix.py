"""Changes by all ways, looked at in all ways: planted at once, made at once, waited for together.

Each pair of a change and a view has a directory of its own, so that nothing is refreshed by what
another view asks. What is right is asked of the host itself, by the same views.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from coherence import views
from coherence.changes import ACROSS, CHANGES, IN_PLACE, Change, change_more, rehearse
from support.planting import plant

OF_ATTRIBUTES = (views.Attributes, views.HeldAttributes)
OF_NAMES = (*OF_ATTRIBUTES, views.Contents, views.Listings, views.HeldListings)
OF_DATA = (*OF_ATTRIBUTES, views.Contents, views.HeldContents, views.Mapped)
UNWATCHED = (*OF_ATTRIBUTES, views.Contents, views.HeldContents, views.MappedAndOpened)


def views_of(change: Change, watched: bool) -> Sequence[type[views.View]]:
    """Those that might be wrong after CHANGE.

    Where nobody watches, the kernel learns of other data from other attributes, when they are
    asked for, and when a file is opened. A page that is mapped is renewed by no more than that.
    """
    if not change.in_place:
        return (*OF_NAMES, views.HeldContents) if change.across and watched else OF_NAMES
    if not change.of_data:
        return OF_ATTRIBUTES
    if watched:
        return OF_DATA
    kept = change is IN_PLACE["overwrite, mtime kept"]
    return [view for view in UNWATCHED if not (kept and view is views.HeldContents)]


@dataclass
class Case:
    """One change, made one way, looked at in one way."""

    label: str
    change: Change
    acted_on: Path
    """The directory to make it in."""
    outside: Path
    """One that no guest sees."""
    seen: views.View
    true: views.View
    """The same view of the host itself."""
    expected: Mapping[str, object] = field(default_factory=dict)

    def is_right(self) -> bool:
        return self.seen.look() == self.expected

    def difference(self) -> str:
        """What is wrong, name by name."""
        seen = self.seen.look()
        wrong = [
            f"{name}: {seen[name]!r}, on the host {right!r}"
            for name, right in self.expected.items()
            if seen[name] != right
        ]
        return f"{self.label}: " + "; ".join(wrong or ["right by now"])


@dataclass(frozen=True)
class Way:
    """How changes get to the source, and which can be made so."""

    name: str
    guest: Path
    """Where the guest looks, the root of a mount or a directory in it."""
    host: Path
    """The directory that is shown there."""
    acted_on: Path
    """The same directory, by the way in which it is changed."""
    changes: Mapping[str, Change]


def place_of(way: Way, change: str, view: type[views.View]) -> str:
    """The directory of one case; not a deep one: each level of a path costs lookups."""
    return f"{way.name}, {change}, {view.__name__}"


class Matrix:
    """Cases of one or several ways, which share the steps."""

    def __init__(self, scratch: Path, watched: bool) -> None:
        """SCRATCH is a directory outside of all sources; WATCHED, whether those are."""
        self._scratch = scratch
        self._watched = watched
        self._names = {
            name: rehearse(scratch / "rehearsal" / name, change) for name, change in CHANGES.items()
        }
        self._sites: list[tuple[Way, str, type[views.View]]] = []
        self.cases: list[Case] = []

    def plant(self, *ways: Way) -> None:
        """Make the trees that WAYS are tried on."""
        for way in ways:
            for name, change in way.changes.items():
                for view in views_of(change, self._watched):
                    self._sites.append((way, name, view))
                    at = plant(way.host / place_of(way, name, view), *change.planted)
                    if way.name == HARD_LINK:  # another name for it where no guest sees it
                        alias = plant(way.acted_on / at.name)
                        os.link(at / "file", alias / "file")

    def warm(self) -> None:
        """Open what views hold, and look at everything in every way, absent names included."""
        for number, (way, name, view) in enumerate(self._sites):
            place = place_of(way, name, view)
            names, outside = self._names[name], self._scratch / "outside" / str(number)
            outside.mkdir(parents=True)
            seen, true = (view(root / place, names) for root in (way.guest, way.host))
            case = Case(place, way.changes[name], way.acted_on / place, outside, seen, true)
            self.cases.append(case)
        for case in self.cases:
            for view in (views.Listings, views.Contents, views.Attributes):
                view(case.seen.base, case.seen.names).look()
            case.expected = case.true.look()
        for case in self.cases:
            case.seen.look()
            assert case.is_right(), f"before anything changed: {case.difference()}"

    def change(self) -> None:
        """Make all changes, and ask the host what is right from now on."""
        for case in self.cases:
            case.change.do(case.acted_on, case.outside)
        self._ask_the_host()

    def change_more(self) -> None:
        """Change everything once more, wherever it is by now."""
        for case in self.cases:
            change_more(case.acted_on, case.outside)
        self._ask_the_host()

    def _ask_the_host(self) -> None:
        for case in self.cases:
            case.expected = case.true.look()

    def wrong(self, seconds: float) -> list[str]:
        """What a guest that looks all the time still does not see right after SECONDS."""
        deadline = time.monotonic() + seconds
        pending = self.cases
        while True:
            last = time.monotonic() >= deadline
            pending = [case for case in pending if not case.is_right()]
            if not pending or last:
                return [case.difference() for case in pending]

    def __enter__(self) -> Matrix:
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of everything the guest holds."""
        for case in self.cases:
            case.seen.close()
            case.true.close()


HARD_LINK = "hard link"


def sample(way: Way, turn: int, step: int = 3) -> Way:
    """WAY with every STEPth change, beginning with that of number TURN."""
    return replace(way, changes=dict(list(way.changes.items())[turn::step]))


def by_source(name: str, guest: Path, source: Path) -> Way:
    """Directly, over the border too."""
    return Way(name, guest, source, source, CHANGES)


def by_path(name: str, guest: Path, source: Path, acted_on: Path) -> Way:
    """By another path to the source's directories."""
    changes = {title: each for title, each in CHANGES.items() if title not in ACROSS}
    return Way(name, guest, source, acted_on, changes)


def by_hard_link(guest: Path, source: Path, aliases: Path) -> Way:
    """By another name of each file, in a directory that no guest sees."""
    return Way(HARD_LINK, guest, source, aliases, IN_PLACE)

"""What overlayd is to reach, as ratios of one run, and whether it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks import data

Values = Mapping[str, Mapping[str, Mapping[int, float]]]
"""Row, subject, round → value."""

US, PEER, NATIVE = "overlayd", "bindfs", "native"
PASSTHROUGH, ORDINARY = "overlayd-passthrough", "overlayd-ordinary"


def ratios(values: Values, row: str, of: str, to: str) -> list[float]:
    """What OF needs in each round, over what TO needs in the same one."""
    first, second = values.get(row, {}).get(of, {}), values.get(row, {}).get(to, {})
    return [first[number] / second[number] for number in sorted(first) if second.get(number)]


def typical(values: Values, row: str, subject: str) -> float | None:
    """The median of all rounds; None where there was none."""
    found = values.get(row, {}).get(subject, {})
    return median(found.values()) if found else None


@dataclass(frozen=True)
class Verdict:
    """One row that has a goal."""

    row: str
    of: str
    against: str
    goal: str
    figure: float | None
    """None where it was not measured."""
    reached: bool
    shown: str


Measure = Callable[[Values, str, str], float | None]
"""Of a row and a subject."""


@dataclass(frozen=True)
class Goal:
    """A bound for some rows."""

    rows: tuple[str, ...]
    against: str
    text: str
    measure: Measure
    bound: float
    at_least: bool
    show: str = "{:.2f}"
    scale: float = 1.0
    """By which a figure is divided before it is shown and compared."""
    of: str = US

    def judge(self, values: Values) -> list[Verdict]:
        """One verdict for each row."""
        return [self._judge(values, row) for row in self.rows]

    def _judge(self, values: Values, row: str) -> Verdict:
        figure = self.measure(values, row, self.of)
        if figure is None:
            return Verdict(row, self.of, self.against, self.text, None, False, "not measured")
        figure /= self.scale
        reached = figure >= self.bound if self.at_least else figure <= self.bound
        shown = self.show.format(figure)
        return Verdict(row, self.of, self.against, self.text, figure, reached, shown)


def share_of_native(values: Values, row: str, of: str = US) -> float | None:
    """Of native speed: 1 is as fast."""
    found = ratios(values, row, NATIVE, of)
    return median(found) if found else None


def times_as_fast(values: Values, row: str, of: str = US) -> float | None:
    """As the peer: 2 needs half the time."""
    found = ratios(values, row, PEER, of)
    return median(found) if found else None


def against_the_first(values: Values, row: str, of: str) -> float | None:
    """Over the same with one preopen, round by round."""
    base = values.get(f"{row.rpartition('-')[0]}-1", {}).get(of, {})
    found = values.get(row, {}).get(of, {})
    paired = [found[number] / base[number] for number in found if base.get(number)]
    return median(paired) if paired else None


WARM = ("stat-warm", "negative-warm", "walk-warm", "git-status-warm", "python-second")
SINGLE = ("stat-cold", "open-read-close", "create", "unlink", "rename")
BY_EIGHT = tuple(
    f"clients-8-{name}" for name in ("stat", "open-read-close", "create", "unlink", "rename")
)
MANY_AT_ONCE = (
    *("walk-cold", "list-10", "list-large"),
    *("tar-unpack", "tar-delete", "git-status-cold"),
)

GOALS = (
    Goal(WARM, NATIVE, "at least 0.9 of its speed", share_of_native, 0.9, True),
    Goal(SINGLE, PEER, "at least 1.5 times as fast", times_as_fast, 1.5, True),
    Goal(BY_EIGHT, PEER, "at least as fast", times_as_fast, 1.0, True),
    Goal(MANY_AT_ONCE, PEER, "at least 3 times as fast", times_as_fast, 3.0, True),
    Goal(
        ("preopens-10", "preopens-100", "preopens-1000", "levels-10", "levels-100"),
        "one preopen",
        "at most 1.1 of its cost",
        against_the_first,
        1.1,
        at_least=False,
    ),
    Goal(
        ("memory-10000", "memory-100000", "memory-1000000"),
        "",
        "under 600 bytes",
        typical,
        600,
        at_least=False,
        show="{:.0f} bytes",
    ),
    Goal(("mount",), "", "under 0.3 s", typical, 0.3, False, "{:.2f} s", 1e9),
    Goal(("run-true",), "", "under 0.5 s", typical, 0.5, False, "{:.2f} s", 1e9),
    Goal(("mounts-memory-largest",), "", "under 20 MB", typical, 20, False, "{:.1f} MB", 1e6),
    Goal(("mounts-ticks",), "", "no processor time", typical, 0, False, "{:.0f} ticks"),
    Goal(
        data.ROWS, NATIVE, "at least 0.9 of its speed", share_of_native, 0.9, True, of=PASSTHROUGH
    ),
    Goal(
        data.SMALL_REQUESTS,
        PEER,
        "at least 5 times as fast",
        times_as_fast,
        5.0,
        at_least=True,
        of=PASSTHROUGH,
    ),
    Goal(data.ROWS, PEER, "at least as fast", times_as_fast, 1.0, True, of=ORDINARY),
)


def judge(values: Values, optional: Sequence[str] = ("memory-1000000",)) -> list[Verdict]:
    """Every goal; those rows of OPTIONAL that were not measured are left out."""
    verdicts = [verdict for goal in GOALS for verdict in goal.judge(values)]
    return [one for one in verdicts if one.figure is not None or one.row not in optional]

"""A run: all that came out of it, as it is written to a file and read again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.goals import NATIVE, ORDINARY, PASSTHROUGH, PEER, US, Values, Verdict, judge
from benchmarks.measure import Results, Row, Sizes
from benchmarks.subjects import DATA, NAMES

FORMAT = 1
FIRST_ORDER = (NATIVE, "bind", PEER, US, PASSTHROUGH, ORDINARY)


@dataclass(frozen=True)
class Document:
    """A run: all that is written to its file."""

    machine: dict[str, Any]
    size: str
    rows: tuple[Row, ...]
    values: Values
    failures: list[str]
    spent: dict[str, float]
    """Seconds, by workload; and how long the whole run took."""
    seconds: float
    rounds: int

    def subjects(self, part: str) -> list[str]:
        """Those with any value in a part of the run, the important ones first."""
        found = {subject for row in self.measured(part) for subject in self.values[row.name]}
        return [name for name in FIRST_ORDER if name in found] + sorted(found - {*FIRST_ORDER})

    @property
    def parts(self) -> list[str]:
        """Of which anything was measured."""
        return [part for part in (NAMES, DATA) if self.measured(part)]

    def measured(self, part: str) -> list[Row]:
        """The rows of a part that have values."""
        return [row for row in self.rows if row.part == part and row.name in self.values]

    def verdicts(self) -> list[Verdict]:
        """Goal by goal, those of which anything was measured."""
        return [one for one in judge(self.values) if one.row in self.values]

    def write(self, path: Path) -> None:
        """As JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        told = {"format": FORMAT, **asdict(self)}
        told["verdicts"] = [asdict(verdict) for verdict in self.verdicts()]
        path.write_text(json.dumps(told, indent=1) + "\n")


def document(
    machine: dict[str, Any],
    size: str,
    sizes: Sizes,
    rows: Sequence[Row],
    results: Results,
    seconds: float,
) -> Document:
    """A run that has just ended."""
    words = {name: value for name, value in asdict(sizes).items() if isinstance(value, int | float)}
    titled = tuple(replace(row, title=row.title.format(**words)) for row in rows)
    most_first = sorted(results.spent.items(), key=lambda pair: -pair[1])
    spent = {name: round(taken, 1) for name, taken in most_first}
    return Document(
        machine=machine,
        size=size,
        rows=titled,
        values=results.values,
        failures=results.failures,
        spent=spent,
        seconds=round(seconds),
        rounds=sizes.rounds,
    )


def read(path: Path) -> Document:
    """One that was written. Raises ValueError for another format."""
    told = json.loads(path.read_text())
    if told.pop("format") != FORMAT:
        raise ValueError(f"{path}: not written by this version")
    del told["verdicts"]
    told["rows"] = tuple(Row(**row) for row in told["rows"])
    told["values"] = {
        row: {
            subject: {int(number): value for number, value in rounds.items()}
            for subject, rounds in subjects.items()
        }
        for row, subjects in told["values"].items()
    }
    return Document(**told)

"""What came out, as a table, as plots, as a file, and in the documentation.

    python -m benchmarks.report RESULTS.json [--docs PAGE]

shows an earlier run again, or writes it into the page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.goals import GOALS, Goal, Values, Verdict, judge, ratios, times_as_fast, typical
from benchmarks.goals import share_of_native as share
from benchmarks.measure import Results, Row, Sizes

FORMAT = 1
BEGIN, END = "<!-- made by make bench: begin -->", "<!-- made by make bench: end -->"
FIRST_ORDER = ("native", "bind", "bindfs", "overlayd")
SCALES = {"us": 1e3, "ms": 1e6, "s": 1e9, "MB": 1e6, "bytes": 1.0, "ticks": 1.0}
TIMES = ("us", "ms", "s")
SHOWN_UNIT = {"us": "µs"}
BAR = 40
"""Width of the longest bar of the text plot."""


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

    @property
    def subjects(self) -> list[str]:
        """Those with any value, the important ones first."""
        found = {subject for row in self.values.values() for subject in row}
        return [name for name in FIRST_ORDER if name in found] + sorted(found - {*FIRST_ORDER})

    @property
    def measured(self) -> list[Row]:
        """The rows that have values."""
        return [row for row in self.rows if row.name in self.values]

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
    titled = tuple(Row(row.name, row.title.format(**words), row.unit) for row in rows)
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


# -- tables ---------------------------------------------------------------------------------------


def shown(value: float | None, unit: str) -> str:
    """Three digits that matter, or as many as there are before the point."""
    if value is None:
        return "-"
    scaled = value / SCALES[unit]
    if scaled >= 100 or unit in ("bytes", "ticks"):
        return f"{scaled:,.0f}"
    return f"{scaled:.1f}" if scaled >= 10 else f"{scaled:.2f}"


def spread(found: Sequence[float]) -> str:
    """The median, and the smallest and largest of all rounds."""
    if not found:
        return "-"
    if len(found) == 1:
        return f"{found[0]:.2f}"
    return f"{median(found):.2f} ({min(found):.2f}-{max(found):.2f})"


def table(run: Document) -> tuple[list[str], list[list[str]]]:
    """Head and lines: medians of all subjects, and the two ratios."""
    head = ["workload", "unit", *run.subjects, "native/overlayd", "bindfs/overlayd"]
    lines = []
    for row in run.measured:
        medians = [
            shown(typical(run.values, row.name, subject), row.unit) for subject in run.subjects
        ]
        compared = (
            ["-", "-"]
            if row.unit not in TIMES
            else [
                spread(ratios(run.values, row.name, other, "overlayd"))
                for other in ("native", "bindfs")
            ]
        )
        lines.append([row.title, SHOWN_UNIT.get(row.unit, row.unit), *medians, *compared])
    return head, lines


def outcome(one: Verdict) -> str:
    """In a word or two, or none where nothing can be said."""
    if one.figure is None:
        return ""
    return "reached" if one.reached else "not reached"


def goal_table(run: Document) -> tuple[list[str], list[list[str]]]:
    """Head and lines: each goal of which anything was measured."""
    titles = {row.name: row.title for row in run.rows}
    lines = [
        [
            titles.get(one.row, one.row),
            one.against or "-",
            one.goal,
            one.shown,
            outcome(one),
        ]
        for one in run.verdicts()
    ]
    return ["workload", "against", "goal", "measured", ""], lines


def as_text(head: list[str], lines: list[list[str]]) -> str:
    """Columns side by side: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *lines]
    )


def as_markdown(head: list[str], lines: list[list[str]], left: int) -> str:
    """The same for the page; the first LEFT columns to the left."""
    rule = ["---" if index < left else "---:" for index in range(len(head))]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *lines])


# -- plots ----------------------------------------------------------------------------------------


def bars(run: Document) -> Iterator[tuple[str, Goal, list[tuple[str, float]]]]:
    """What is drawn: one panel for each of the ratios, with the goals that set a mark."""
    panels = {
        "share of native speed": (share, GOALS[0]),
        "times as fast as bindfs": (times_as_fast, GOALS[1]),
    }
    for title, (measure, goal) in panels.items():
        found = [
            (row.name, figure)
            for row in run.measured
            if is_drawn(row) and (figure := measure(run.values, row.name)) is not None
        ]
        if found:
            yield title, goal, found


def is_drawn(row: Row) -> bool:
    """Whether it is about requests; with several clients, whether there is a goal for so many."""
    if row.unit not in TIMES or row.name == "mount":
        return False
    several = row.name.startswith(("clients-", "one-directory-"))
    return not several or any(row.name in goal.rows for goal in GOALS)


def mark_of(row: str, against: str) -> float | None:
    """The goal of a row, where it has one against that subject."""
    return next((g.bound for g in GOALS if row in g.rows and g.against == against), None)


def as_bars(run: Document) -> str:
    """The ratios as bars: `|` is the goal of a row, where it has one."""
    lines = []
    for title, goal, found in bars(run):
        most = min(max(figure for _, figure in found), 20.0)
        width = max(len(name) for name, _ in found)
        lines.append(f"\n{title}")
        for name, figure in found:
            cells = list("#" * round(min(figure, most) / most * BAR)) or ["."]
            mark = mark_of(name, goal.against)
            if mark is not None and (place := round(mark / most * BAR)) <= BAR:
                cells += [" "] * (place + 1 - len(cells))
                cells[place] = "|"
            lines.append(f"{name:<{width}} {figure:6.2f} {''.join(cells)}")
    return "\n".join(lines)


def draw(run: Document, path: Path) -> bool:
    """The same as a PNG; False where matplotlib is not installed."""
    try:
        import matplotlib as mpl  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot

    panels = list(bars(run))
    if not panels:
        return False
    height = 1.5 + 0.22 * max(len(found) for *_, found in panels)
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(7 * len(panels), height), squeeze=False, layout="constrained"
    )
    for axis, (title, goal, found) in zip(axes[0], panels, strict=True):
        _draw_panel(axis, title, goal, found)
    machine = run.machine
    figure.suptitle(f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}")
    figure.savefig(path, dpi=80, metadata={"Software": None})
    pyplot.close(figure)
    return True


def _draw_panel(axis: Any, title: str, goal: Goal, found: list[tuple[str, float]]) -> None:
    """Bars from the line of equal speed: blue without a goal, green and red with one."""
    for place, (name, value) in enumerate(reversed(found)):
        mark = mark_of(name, goal.against)
        colour = "#7a9cc6" if mark is None else "#4c9f70" if value >= mark else "#c8553d"
        axis.barh(place, value - 1, left=1, color=colour, height=0.7)
        axis.text(value, place, f" {value:.2f} ", va="center", ha="left" if value > 1 else "right")
        if mark is not None:
            axis.plot([mark, mark], [place - 0.45, place + 0.45], color="black", linewidth=1.5)
    axis.set_xscale("log")
    axis.axvline(1, color="black", linewidth=0.6)
    axis.set_yticks(range(len(found)), [name for name, _ in reversed(found)])
    axis.set_ylim(-0.7, len(found) - 0.3)
    low, high = axis.get_xlim()
    axis.set_xlim(low / 1.6, high * 1.6)
    axis.set_title(f"{title} (black mark: goal)")


# -- the page -------------------------------------------------------------------------------------


def summary(run: Document) -> str:
    """The machine and the run, in a few lines."""
    machine = run.machine
    versions = [f"{name}: {text}" for name, text in machine["subjects"].items() if text]
    lines = [
        f"{machine['date']}, {machine['commit']}; sizes: {run.size}, {run.rounds} rounds, "
        f"{run.seconds:.0f} s",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"{machine['system']}, Linux {machine['kernel']}; trees on {machine['file_system']}",
        f"Python {machine['python']}, libfuse {machine['libfuse']}; {'; '.join(versions)}",
        f"load before: {' '.join(map(str, machine['load_before']))}",
    ]
    if machine["load_before"][0] > BUSY * machine["cores"]:
        lines.append("THE MACHINE WAS BUSY: these figures say little.")
    return "\n".join(lines)


BUSY = 0.4
"""Load per core from which on figures are not to be trusted."""


def everything(run: Document) -> str:
    """What is printed."""
    parts = [as_text(*table(run)), as_bars(run)]
    if run.verdicts():
        parts += ["\ngoals", as_text(*goal_table(run))]
    parts += ["", summary(run)]
    if run.failures:
        parts += ["\nFAILED:", *run.failures]
    return "\n".join(parts)


def section(run: Document) -> str:
    """What stands between the marks of the page."""
    lines = [f"- {line}" for line in summary(run).splitlines()]
    notes = "; ".join(f"{name}: {note}" for name, note in run.machine["notes"].items())
    parts = ["\n".join([*lines, f"- {notes}"])]
    if run.failures:
        parts.append("Failed:\n\n" + "\n".join(f"- {failure}" for failure in run.failures))
    judged = [verdict for verdict in run.verdicts() if verdict.figure is not None]
    reached = sum(verdict.reached for verdict in judged)
    parts += [
        f"### Goals: {reached} of {len(judged)} reached",
        as_markdown(*goal_table(run), left=3),
        "### All workloads",
        as_markdown(*table(run), left=2),
    ]
    return "\n\n".join(parts)


def write_page(run: Document, page: Path) -> None:
    """Put the run between the marks of PAGE. Raises ValueError where it has none."""
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page}: no marks {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{section(run)}\n\n{END}{after}")


def main() -> int:
    """Show a run again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--docs", type=Path, help="the page to write it into")
    arguments = parser.parse_args()
    run = read(arguments.results)
    print(everything(run))
    if arguments.docs:
        write_page(run, arguments.docs)
        draw(run, arguments.docs.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main())

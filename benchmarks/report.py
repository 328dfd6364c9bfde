"""What came out, as a table, as plots, as a file, and in the documentation.

    python -m benchmarks.report RESULTS.json [--docs PAGE]

shows an earlier run again, or writes it into the page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.goals import (
    GOALS,
    NATIVE,
    ORDINARY,
    PASSTHROUGH,
    PEER,
    US,
    Values,
    Verdict,
    judge,
    ratios,
    typical,
)
from benchmarks.measure import Results, Row, Sizes
from benchmarks.subjects import DATA, NAMES

FORMAT = 1
BEGIN, END = "<!-- made by make bench: begin -->", "<!-- made by make bench: end -->"
FIRST_ORDER = (NATIVE, "bind", PEER, US, PASSTHROUGH, ORDINARY)
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


def table(run: Document, part: str) -> tuple[list[str], list[list[str]]]:
    """Head and lines: medians of all subjects, and what each of ours is beside the others."""
    subjects = run.subjects(part)
    pairs = [
        (other, one)
        for one in subjects
        if one.startswith(US)
        for other in (NATIVE, PEER)
        if other in subjects or part == NAMES
    ]
    head = ["workload", "unit", *subjects, *(f"{other}/{one}" for other, one in pairs)]
    lines = []
    for row in run.measured(part):
        medians = [shown(typical(run.values, row.name, subject), row.unit) for subject in subjects]
        compared = [
            spread(ratios(run.values, row.name, one, other) if row.unit in TIMES else [])
            for one, other in pairs
        ]
        lines.append([row.title, SHOWN_UNIT.get(row.unit, row.unit), *medians, *compared])
    return head, lines


def outcome(one: Verdict) -> str:
    """In a word or two, or none where nothing can be said."""
    if one.figure is None:
        return ""
    return "reached" if one.reached else "not reached"


def goal_table(run: Document, part: str) -> tuple[list[str], list[list[str]]]:
    """Head and lines: the goals of a part of which anything was measured."""
    return goals_of_data(run) if part == DATA else goals_of_names(run)


def goals_of_names(run: Document) -> tuple[list[str], list[list[str]]]:
    """One line for each."""
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
        if one.of == US
    ]
    return ["workload", "against", "goal", "measured", ""], lines


COLUMNS = {
    (PASSTHROUGH, NATIVE): "with passthrough, against native",
    (PASSTHROUGH, PEER): "with passthrough, against bindfs",
    (ORDINARY, PEER): "without, against bindfs",
}
"""Of the goals of data, by whose they are and against whom."""


def goals_of_data(run: Document) -> tuple[list[str], list[list[str]]]:
    """One line for each workload, as most have the same goals."""
    found = {(one.row, one.of, one.against): one for one in run.verdicts()}
    bounds = {(one.of, one.against): one.goal for one in found.values()}
    head = [f"{title}: {bounds[key]}" for key, title in COLUMNS.items() if key in bounds]
    lines = [
        [row.title, *(judged(run, found.get((row.name, *key))) for key in COLUMNS if key in bounds)]
        for row in run.measured(DATA)
    ]
    return ["workload", *head], lines


def judged(run: Document, one: Verdict | None) -> str:
    """A figure and its outcome; and that of native, where not even that is so far ahead."""
    if one is None:
        return ""
    text = f"{one.shown} {outcome(one)}".strip()
    if one.figure is None or one.reached or one.against != PEER or one.of != PASSTHROUGH:
        return text
    native = spread(ratios(run.values, one.row, PEER, NATIVE)).partition(" ")[0]
    return f"{text} (native: {native})"


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


@dataclass(frozen=True)
class Panel:
    """One plot: what `to` needs over what `of` needs, row by row."""

    title: str
    part: str
    of: str
    to: str

    def bars(self, run: Document) -> list[tuple[str, float]]:
        """Row and ratio."""
        found = {
            row.name: ratios(run.values, row.name, self.to, self.of)
            for row in run.measured(self.part)
            if is_drawn(row)
        }
        return [(name, median(values)) for name, values in found.items() if values]

    def mark_of(self, row: str) -> float | None:
        """The goal of a row, where it has one here."""
        goals = [goal for goal in GOALS if (goal.of, goal.against) == (self.of, self.to)]
        return next((goal.bound for goal in goals if row in goal.rows), None)


PANELS = (
    Panel("share of native speed", NAMES, US, NATIVE),
    Panel("times as fast as bindfs", NAMES, US, PEER),
    Panel("with passthrough: share of native speed", DATA, PASSTHROUGH, NATIVE),
    Panel("with passthrough: times as fast as bindfs", DATA, PASSTHROUGH, PEER),
    Panel("without passthrough: times as fast as bindfs", DATA, ORDINARY, PEER),
)


def panels(run: Document, part: str) -> Iterator[tuple[Panel, list[tuple[str, float]]]]:
    """What is drawn of a part, and its bars."""
    for panel in PANELS:
        if panel.part == part and (found := panel.bars(run)):
            yield panel, found


def is_drawn(row: Row) -> bool:
    """Whether it is about requests; with several clients, whether there is a goal for so many."""
    if row.unit not in TIMES or row.name == "mount":
        return False
    several = row.name.startswith(("clients-", "one-directory-"))
    return not several or any(row.name in goal.rows for goal in GOALS)


def as_bars(run: Document, part: str) -> str:
    """The ratios as bars: `|` is the goal of a row, where it has one."""
    lines = []
    for panel, found in panels(run, part):
        most = min(max(figure for _, figure in found), 20.0)
        width = max(len(name) for name, _ in found)
        lines.append(f"\n{panel.title}")
        for name, figure in found:
            cells = list("#" * round(min(figure, most) / most * BAR)) or ["."]
            mark = panel.mark_of(name)
            if mark is not None and (place := round(mark / most * BAR)) <= BAR:
                cells += [" "] * (place + 1 - len(cells))
                cells[place] = "|"
            lines.append(f"{name:<{width}} {figure:6.2f} {''.join(cells)}")
    return "\n".join(lines)


def plot_of(path: Path, part: str) -> Path:
    """Where a part is drawn: PATH, with another name for the data."""
    return path.with_stem(f"{path.stem}-{DATA}") if part == DATA else path


def draw(run: Document, path: Path) -> list[Path]:
    """The same as PNGs, one for each part; none where matplotlib is not installed."""
    try:
        import matplotlib as mpl  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return []
    mpl.use("Agg")
    drawn = {plot_of(path, part): list(panels(run, part)) for part in run.parts}
    for file, found in drawn.items():
        if found:
            _draw_part(run, file, found)
    return [file for file, found in drawn.items() if found]


def _draw_part(
    run: Document, path: Path, drawn: list[tuple[Panel, list[tuple[str, float]]]]
) -> None:
    from matplotlib import pyplot

    height = 1.5 + 0.22 * max(len(found) for _, found in drawn)
    figure, axes = pyplot.subplots(
        1, len(drawn), figsize=(7 * len(drawn), height), squeeze=False, layout="constrained"
    )
    for axis, (panel, found) in zip(axes[0], drawn, strict=True):
        _draw_panel(axis, panel, found)
    machine = run.machine
    figure.suptitle(f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}")
    figure.savefig(path, dpi=80, metadata={"Software": None})
    pyplot.close(figure)


def _draw_panel(axis: Any, panel: Panel, found: list[tuple[str, float]]) -> None:
    """Bars from the line of equal speed: blue without a goal, green and red with one."""
    for place, (name, value) in enumerate(reversed(found)):
        mark = panel.mark_of(name)
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
    axis.set_title(f"{panel.title} (black mark: goal)")


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
    lines += [f"left out: {reason}" for reason in machine.get("left_out", [])]
    if machine["load_before"][0] > BUSY * machine["cores"]:
        lines.append("THE MACHINE WAS BUSY: these figures say little.")
    return "\n".join(lines)


BUSY = 0.4
"""Load per core from which on figures are not to be trusted."""


def everything(run: Document) -> str:
    """What is printed."""
    parts = []
    for part in run.parts:
        parts += [as_text(*table(run, part)), as_bars(run, part)]
        if verdicts_of(run, part):
            parts += [f"\n{GOALS_OF[part].lower()}", as_text(*goal_table(run, part))]
        parts.append("")
    parts.append(summary(run))
    if run.failures:
        parts += ["\nFAILED:", *run.failures]
    return "\n".join(parts)


GOALS_OF = {NAMES: "Goals", DATA: "Goals for data"}
TABLE_OF = {NAMES: "All workloads", DATA: "All workloads of data"}


def verdicts_of(run: Document, part: str) -> list[Verdict]:
    """Those of one part."""
    rows = {row.name for row in run.measured(part)}
    return [verdict for verdict in run.verdicts() if verdict.row in rows]


def section(run: Document, plots: Sequence[str] = ()) -> str:
    """What stands between the marks of the page; PLOTS are names of files beside it."""
    lines = [f"- {line}" for line in summary(run).splitlines()]
    notes = "; ".join(f"{name}: {note}" for name, note in run.machine["notes"].items())
    parts = ["\n".join([*lines, f"- {notes}"])]
    if run.failures:
        parts.append("Failed:\n\n" + "\n".join(f"- {failure}" for failure in run.failures))
    for part in run.parts:
        found = [verdict for verdict in verdicts_of(run, part) if verdict.figure is not None]
        reached = sum(verdict.reached for verdict in found)
        parts += [
            f"### {GOALS_OF[part]}: {reached} of {len(found)} reached",
            as_markdown(*goal_table(run, part), left=3 if part == NAMES else 1),
            f"### {TABLE_OF[part]}",
            as_markdown(*table(run, part), left=2),
        ]
    parts += [f"![the ratios of {name}]({name})" for name in plots]
    return "\n\n".join(parts)


def write_page(run: Document, page: Path) -> list[Path]:
    """Put the run between the marks of PAGE, and its plots, which it returns, beside that.

    Raises ValueError where there are no marks.
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page}: no marks {BEGIN} and {END}")
    plots = draw(run, page.with_suffix(".png"))
    # The page itself shows the first one, which any run has.
    told = section(run, [plot.name for plot in plots if plot.stem != page.stem])
    page.write_text(f"{before}{BEGIN}\n\n{told}\n\n{END}{after}")
    return plots


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
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What came out, as a table, as plots, as a file, and in the documentation.

    python -m benchmarks.report RESULTS.json [--docs PAGE]

shows an earlier run again, or writes it into the page.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from benchmarks.document import Document, read
from benchmarks.goals import NATIVE, ORDINARY, PASSTHROUGH, PEER, US, Verdict, ratios, typical
from benchmarks.measure import TIMES
from benchmarks.plots import as_bars, draw, plot_of
from benchmarks.subjects import DATA, NAMES

BEGIN, END = "<!-- made by make bench: begin -->", "<!-- made by make bench: end -->"
SCALES = {"us": 1e3, "ms": 1e6, "s": 1e9, "MB": 1e6, "bytes": 1.0, "ticks": 1.0}
SHOWN_UNIT = {"us": "µs"}


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


def section(run: Document, plot: str = "") -> str:
    """What stands between the marks of the page; PLOT is the name of that of data, if there is."""
    lines = [f"- {line}" for line in summary(run).splitlines()]
    notes = "; ".join(f"{name}: {note}" for name, note in run.machine["notes"].items())
    parts = ["\n".join([*lines, f"- {notes}"])]
    if run.failures:
        parts.append("Failed:\n\n" + "\n".join(f"- {failure}" for failure in run.failures))
    for part in run.parts:
        found = [verdict for verdict in verdicts_of(run, part) if verdict.figure is not None]
        reached = sum(verdict.reached for verdict in found)
        parts.append(f"### {GOALS_OF[part]}: {reached} of {len(found)} reached")
        if part == DATA and plot:
            parts.append(f"![what is left of native speed, and times as fast as bindfs]({plot})")
        parts += [
            as_markdown(*goal_table(run, part), left=3 if part == NAMES else 1),
            f"### {TABLE_OF[part]}",
            as_markdown(*table(run, part), left=2),
        ]
    return "\n\n".join(parts)


def write_page(run: Document, page: Path) -> None:
    """Put the run between the marks of PAGE, and its plots beside that.

    Raises ValueError where there are no marks.
    """
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page}: no marks {BEGIN} and {END}")
    plots = draw(run, page.with_suffix(".png"))
    of_data = plot_of(page.with_suffix(".png"), DATA)
    # The page itself shows the other one: that is always there.
    told = section(run, of_data.name if of_data in plots else "")
    page.write_text(f"{before}{BEGIN}\n\n{told}\n\n{END}{after}")


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

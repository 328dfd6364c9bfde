"""What came out as bars, in text and as pictures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.document import Document
from benchmarks.goals import GOALS, NATIVE, ORDINARY, PASSTHROUGH, PEER, US, ratios
from benchmarks.measure import TIMES, Row
from benchmarks.subjects import DATA, NAMES

BAR = 40
"""Width of the longest bar of the text plot."""


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
    Panel("passthrough: share of native speed", DATA, PASSTHROUGH, NATIVE),
    Panel("passthrough: times as fast as bindfs", DATA, PASSTHROUGH, PEER),
    Panel("without it: times as fast as bindfs", DATA, ORDINARY, PEER),
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
    where = f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}"
    figure.suptitle(f"{where}\nblack marks: goals")
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
    axis.set_title(panel.title)

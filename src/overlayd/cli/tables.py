"""Tables: drawn where a person looks, plain columns where a program may."""

import os
import sys
from collections.abc import Sequence

import click

Row = Sequence[str]


def show_table(headers: Row, rows: Sequence[Row], *, numbers: frozenset[str]) -> None:
    """Print *rows*; the columns named in *numbers* are aligned to the right, and stay whole."""
    if sys.stdout.isatty():
        _draw(headers, rows, numbers)
        return
    right = [header in numbers for header in headers]
    widths = [max(len(row[i]) for row in (headers, *rows)) for i in range(len(headers))]
    for row in (headers, *rows):
        cells = zip(row, widths, right, strict=True)
        line = "  ".join(c.rjust(width) if r else c.ljust(width) for c, width, r in cells)
        click.echo(line.rstrip())


def _draw(headers: Row, rows: Sequence[Row], numbers: frozenset[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    widths = [max(len(row[i]) for row in (headers, *rows)) for i in range(len(headers))]
    least = [
        width if width <= _FOLDED else max(_FOLDED, len(h))
        for h, width in zip(headers, widths, strict=True)
    ]
    for header, width in zip(headers, least, strict=True):
        table.add_column(
            Text(header, style="bold"),
            justify="right" if header in numbers else "left",
            min_width=width,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    # NO_COLOR takes rich's colours away and leaves its bold type.
    plain = bool(os.environ.get("NO_COLOR"))
    console = Console(highlight=False, color_system=None if plain else "auto")
    if console.width < sum(least) + _BETWEEN * len(least):
        # rich would leave out columns: have the terminal break the lines instead.
        console.width = sum(widths) + _BETWEEN * len(widths)
    console.print(table)


_FOLDED = 12
"""Columns: what is longer, a path that is, may be folded where the terminal is narrow."""

_BETWEEN = 2
"""Columns from one cell to the next, the edges taken together as one gap."""

_STYLES = {"live": "green", "dead": "red", "no answer": "yellow", "ro": "cyan"}


def amount(count: int) -> str:
    """A number of bytes as a person reads it, in powers of 1024."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} PiB"


def duration(seconds: float) -> str:
    """A time span as a person reads it, in its two largest units."""
    total = int(seconds)
    days, hours, minutes = total // 86400, total // 3600 % 24, total // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {total % 60} s" if minutes else f"{total} s"

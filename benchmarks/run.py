"""Measure overlayd beside its peers on one machine, in one run: `make bench`.

Everybody shows a copy of the same tree: the directory itself, a kernel bind mount, overlayd, bindfs
and what else is installed. Every workload is done by each of them in turn, several rounds long, in
another order each round. A table, plots and a file with all figures come out. Needs root.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType

from benchmarks import TOP, data, programs, scaling, workloads
from benchmarks.description import describe
from benchmarks.document import Document, document
from benchmarks.measure import SIZES, Session, Workload, Workshop, tell
from benchmarks.place import place_below
from benchmarks.plots import draw
from benchmarks.report import everything, write_page
from benchmarks.subjects import Recipe, Subject, choose, fit

ALL = (*workloads.WORKLOADS, *programs.WORKLOADS, *data.WORKLOADS, *scaling.WORKLOADS)
"""In this order."""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    parser.add_argument("--size", choices=tuple(SIZES), default="default")
    parser.add_argument("--rounds", type=int, help="other than the size says")
    parser.add_argument("--only", default="", help="workloads or rows, with commas between")
    parser.add_argument("--subjects", default="", help="of those installed, with commas between")
    parser.add_argument("--in", dest="place", default="/var/tmp", help="where the trees are made")
    parser.add_argument("--no-disk", action="store_true", help="on the file system that is there")
    parser.add_argument("--out", type=Path, default=TOP / "build/benchmarks", help="for results")
    parser.add_argument("--docs", type=Path, help="a page to write the tables into")
    parser.add_argument("--list", action="store_true", help="show the names, and measure nothing")
    return parser.parse_args(arguments)


def selected(only: str) -> list[Workload]:
    """Those that are, or have, what ONLY names; all if it is empty. Raises ValueError."""
    wanted = set(filter(None, only.split(",")))
    chosen = [one for one in ALL if not wanted or wanted & names_of(one)]
    if unknown := wanted - {name for one in ALL for name in names_of(one)}:
        raise ValueError(f"no workload: {', '.join(sorted(unknown))}; see --list")
    return chosen


def names_of(workload: Workload) -> set[str]:
    """What it can be selected by."""
    return {workload.name, *(row.name for row in workload.rows)}


def show_names() -> None:
    """Every workload and its rows."""
    for workload in ALL:
        print(f"{workload.name}: {', '.join(row.name for row in workload.rows)}")


def stop(number: int, _: FrameType | None) -> None:
    """A request to end is obeyed as Ctrl-C is: with everything cleared away."""
    raise SystemExit(128 + number)


def measure(
    place: Path, options: argparse.Namespace, machine: dict[str, object], recipes: list[Recipe]
) -> Document:
    """Do everything that was asked for."""
    begun = time.monotonic()
    sizes = SIZES[options.size]
    sizes = replace(sizes, rounds=options.rounds) if options.rounds else sizes
    chosen = selected(options.only)
    shop = Workshop(place, sizes)
    subjects = [Subject(recipe, place / recipe.name) for recipe in recipes]
    session = Session(shop, subjects, chosen)
    session.prepare()
    session.run()
    rows = [row for workload in chosen for row in workload.rows]
    lasted = time.monotonic() - begun
    return document(machine, options.size, sizes, rows, session.results, lasted)


def publish(run: Document, options: argparse.Namespace) -> None:
    """Print the run, and write it where it is wanted."""
    text = everything(run)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y-%m-%d-%H%M%S")
    for name in (stamp, "latest"):
        run.write(options.out / f"{name}.json")
    (options.out / "latest.txt").write_text(text + "\n")
    plots = [plot.name for plot in draw(run, options.out / "latest.png")]
    words = [f"{options.out}/{stamp}.json", "latest.json", "latest.txt", *plots]
    print(f"\nwritten: {', '.join(words)}")
    if not plots:
        print("no PNG: matplotlib is not installed, or there is no ratio to draw")
    if options.docs:
        write_page(run, options.docs)
        print(f"written: {options.docs}")


def main(arguments: Sequence[str]) -> int:
    """Return the exit status: 1 where anything failed, 2 where the command line is wrong."""
    options = parse(arguments)
    if options.list:
        show_names()
        return 0
    try:
        selected(options.only)
        recipes = choose([name for name in options.subjects.split(",") if name])
    except ValueError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    with place_below(options.place, not options.no_disk) as (place, file_system):
        fitting, left_out = fit(recipes, place)
        for reason in left_out:
            tell(f"left out: {reason}", keep=True)
        machine = describe(file_system, fitting) | {"left_out": left_out}
        run = measure(place, options, machine, fitting)
    publish(run, options)
    return int(bool(run.failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

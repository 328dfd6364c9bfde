"""What the index of read-only inodes costs: time and memory for a tree of many files.

Only a write to a file with several links ever pays it. The tree is made in a temporary directory
(choose where with --in) and removed again.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from overlayd.host import fs
from overlayd.host.links import LinkIndex, ShownTree

FAN_OUT = 100
"""Directories in one directory above those that hold the files."""
SETTLING_SECONDS = 3
"""A directory that has just changed is listed once more; wait until that is over."""


def main() -> None:
    """Make the tree, measure, and take it away again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--directories", type=int, default=20_000)
    parser.add_argument("--changed", type=int, default=100)
    parser.add_argument("--in", dest="place", default=None, help="where the tree is made")
    arguments = parser.parse_args()
    top = Path(tempfile.mkdtemp(prefix="overlayd-index-", dir=arguments.place))
    try:
        directories = make_tree(top, arguments.files, arguments.directories)
        time.sleep(SETTLING_SECONDS)
        measure(top, directories, arguments.changed)
    finally:
        shutil.rmtree(top)


def make_tree(top: Path, files: int, count: int) -> list[Path]:
    """COUNT directories on two levels that together hold FILES empty files."""
    directories = [top / str(number // FAN_OUT) / str(number) for number in range(count)]
    for number, directory in enumerate(directories):
        directory.mkdir(parents=True)
        for name in range(files * number // count, files * (number + 1) // count):
            os.mknod(directory / f"file-{name}")
    return directories


def measure(top: Path, directories: list[Path], changed: int) -> None:
    """Print the table: the first walk, one with nothing changed, one with CHANGED directories."""
    index = LinkIndex([ShownTree(fs.open_ambient(str(top)), None)], None)
    before = peak_bytes()
    first = seconds_of(lambda: ask(index))
    grown = peak_bytes() - before
    second = seconds_of(lambda: ask(index))
    for directory in directories[:: max(len(directories) // changed, 1)][:changed]:
        (directory / "new").touch()
    third = seconds_of(lambda: ask(index))
    rows = [
        ("files in the index", f"{len(index):,}"),
        ("directories", f"{len(directories):,}"),
        ("first walk", f"{first:.2f} s"),
        ("next walk, nothing changed", f"{second:.2f} s"),
        (f"next walk, {changed} directories changed", f"{third:.2f} s"),
        ("peak memory growth", f"{grown / 2**20:.1f} MiB"),
        ("per file", f"{grown / max(len(index), 1):.1f} bytes"),
    ]
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        sys.stdout.write(f"{label:<{width}}  {value:>12}\n")


def ask(index: LinkIndex) -> None:
    """What one write to a file with several links asks, none of which is in the tree."""
    assert not index.holds(0, 0, lambda: True)


def seconds_of(call: Callable[[], None]) -> float:
    """How long CALL takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def peak_bytes() -> int:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()

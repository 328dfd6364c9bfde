"""What grows with the table, with the inodes and with the mounts; and how long commands take."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.measure import (
    Row,
    Turn,
    Workload,
    Workshop,
    memory_of,
    numbers_of,
)
from benchmarks.subjects import (
    SubjectError,
    mount,
    overlayd_words,
    unmount,
)
from benchmarks.workloads import CHANGES
from support.processes import daemons_of, ticks_of

ONLY_OVERLAYD = "overlayd"
REQUESTS = ("stat", "open-read-close", *CHANGES)
IN_ONE_DIRECTORY = 1_000
SETTLING_SECONDS = 2
COMMANDS = 3
"""How often a command is started in each round; the median counts."""


def runtime_directory() -> Path:
    """Where the daemons of this run keep their records; each of them has it in its environment."""
    return Path(os.environ["OVERLAYD_RUNTIME_DIR"])


@contextmanager
def one_more(words: Sequence[str], target: Path) -> Iterator[int]:
    """A mount of its own on a new directory TARGET; its daemon's process id."""
    target.mkdir(parents=True)
    before = set(daemons_of(runtime_directory()))
    try:
        mount(words, target)
        started = set(daemons_of(runtime_directory())) - before
        if len(started) != 1:
            raise SubjectError(f"{words[0]} left {len(started)} processes")
        yield started.pop()
    finally:
        unmount(target)
        target.rmdir()


# -- the table ------------------------------------------------------------------------------------


def flat_table(tops: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Preopens side by side, and the guest paths at which to measure: the root and the last."""
    entries = [f"{tops[0]}::/"] + [f"{top}::/p{n}" for n, top in enumerate(tops) if n]
    return entries, ["", f"p{len(tops) - 1}" if len(tops) > 1 else ""]


def nested_table(tops: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Each preopen in the one before, and where to measure: in the innermost, twice."""
    entries = [f"{top}::/" + "/".join(["n"] * level) for level, top in enumerate(tops)]
    innermost = "/".join(["n"] * (len(tops) - 1))
    return entries, [innermost, innermost]


Table = Callable[[Sequence[Path]], tuple[list[str], list[str]]]


def run_growth(turn: Turn, prefix: str, numbers: Sequence[int], table: Table) -> dict[str, float]:
    """The cost per request in tables of several sizes, one mounted beside the other.

    Files are looked at, opened and read, others created, renamed and removed, in small portions
    and in turn; the median of the portions counts. All that is looked at is new to the kernel.
    """
    place = turn.shop.scratch / prefix
    targets: dict[int, list[Path]] = {}
    portions: dict[int, list[float]] = {number: [] for number in numbers}
    try:
        for number in numbers:
            targets[number] = _mount_table(turn, place / str(number), number, table)
        for part in range(turn.sizes.growth_parts):
            first = part % len(numbers)
            for number in [*numbers[first:], *numbers[:first]]:
                where = targets[number][part % 2]
                portions[number].append(_cost(turn, where / f"part{part}"))
    finally:
        for number in numbers:
            unmount(place / str(number) / "target")
        shutil.rmtree(place, ignore_errors=True)
    return {f"{prefix}-{number}": median(portions[number]) for number in numbers}


def _mount_table(turn: Turn, place: Path, number: int, table: Table) -> list[Path]:
    """Mount NUMBER preopens; the two directories to measure in, with the parts planted."""
    tops = [place / f"source{index}" for index in range(number)]
    for top in (*tops, place / "target"):
        top.mkdir(parents=True)
    entries, where = table(tops)
    for part in range(turn.sizes.growth_parts):
        for top in {tops[0], tops[-1]}:
            (top / f"part{part}").mkdir()
            turn.shop.client("plant", top / f"part{part}", turn.sizes.growth_files, "-s", "100")
            (top / f"part{part}" / "changes").mkdir()
    flags = [word for entry in entries for word in ("--dir", entry)]
    mount(overlayd_words("mount", *flags, str(place / "target")), place / "target")
    return [place / "target" / path for path in where]


def _cost(turn: Turn, directory: Path) -> float:
    """Nanoseconds per operation, of all kinds together."""
    count = turn.sizes.growth_files
    client = turn.shop.client
    looking = [client(name, directory, count) for name in ("stat", "open-read-close")]
    changing = [client(name, directory / "changes", count) for name in CHANGES]
    return sum((*looking, *changing)) / len(REQUESTS)


def run_preopens(turn: Turn) -> dict[str, float]:
    """More and more preopens side by side."""
    return run_growth(turn, "preopens", turn.sizes.preopens, flat_table)


def run_levels(turn: Turn) -> dict[str, float]:
    """One preopen in another, deeper and deeper."""
    return run_growth(turn, "levels", turn.sizes.levels, nested_table)


# -- memory ---------------------------------------------------------------------------------------


def run_memory(turn: Turn) -> dict[str, float]:
    """What a daemon holds more, per inode, after a walk of more and more files."""
    source, target = turn.shop.scratch / "inodes", turn.shop.scratch / "inodes-target"
    _plant_inodes(turn.shop, source)
    values: dict[str, float] = {}
    known = 0
    with one_more(turn.subject.words(source, target), target) as daemon:
        os.listdir(target)
        before = memory_of(daemon)
        for number in turn.sizes.inodes:
            turn.shop.client("walk", target / str(number), number - known)
            values[f"memory-{number}"] = (memory_of(daemon) - before) / number
            known = number
    return values


def _plant_inodes(shop: Workshop, source: Path) -> None:
    """For each number a tree of as many files as are missing from the one before, once for all."""
    if source.exists():
        return
    known = 0
    for number in shop.sizes.inodes:
        (source / str(number)).mkdir(parents=True)
        each = str(IN_ONE_DIRECTORY)
        shop.client("tree", source / str(number), number - known, "-d", each)
        known = number


# -- many mounts ----------------------------------------------------------------------------------


def run_mounts(turn: Turn) -> dict[str, float]:
    """Many mounts that nobody uses: memory of each daemon, and processor time of all together."""
    place = turn.shop.scratch / "mounts"
    source = place / "source"
    source.mkdir(parents=True)
    targets = [place / str(number) for number in range(turn.sizes.mounts)]
    before = set(daemons_of(runtime_directory()))
    try:
        _mount_all(turn, source, targets)
        started = sorted(set(daemons_of(runtime_directory())) - before)
        if len(started) != len(targets):
            raise SubjectError(f"{len(started)} processes for {len(targets)} mounts")
        time.sleep(SETTLING_SECONDS)
        used = sum(map(ticks_of, started))
        time.sleep(turn.sizes.quiet_seconds)
        used = sum(map(ticks_of, started)) - used
        memory = [memory_of(daemon) for daemon in started]
    finally:
        for target in targets:
            unmount(target)
        shutil.rmtree(place)
    return {
        "mounts-memory": median(memory),
        "mounts-memory-largest": max(memory),
        "mounts-ticks": used,
    }


def _mount_all(turn: Turn, source: Path, targets: Sequence[Path]) -> None:
    for target in targets:
        target.mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        mounting = [
            executor.submit(mount, turn.subject.words(source, target), target) for target in targets
        ]
    for mounted in mounting:
        mounted.result()


# -- commands -------------------------------------------------------------------------------------


def run_mount(turn: Turn) -> dict[str, float]:
    """From the start of the command that mounts until it is back and the mount is live."""
    target = turn.shop.scratch / "start"
    target.mkdir(exist_ok=True)
    times = []
    for _ in range(COMMANDS):
        try:
            times.append(turn.shop.timed(turn.subject.words(turn.subject.source, target)))
            os.listdir(target)
        finally:
            unmount(target)
    return {"mount": median(times)}


def run_commands(turn: Turn) -> dict[str, float]:
    """`overlayd run -- true` beside `true`, in turn; and `overlayd health`."""
    timed = turn.shop.timed
    around = overlayd_words("run", "--dir", f"{turn.subject.source}::/", "--", "true")
    more, health = [], []
    for _ in range(COMMANDS):
        alone = timed(["true"])
        more.append(timed(around) - alone)
        health.append(timed(overlayd_words("health", str(turn.subject.target))))
    return {"run-true": median(more), "health": median(health)}


def _rows(name: str, size: str, title: str, unit: str = "us") -> tuple[Row, ...]:
    """Rows for every number that any size has."""
    return tuple(Row(f"{name}-{number}", title.format(number), unit) for number in numbers_of(size))


WORKLOADS = (
    Workload(
        "start",
        (Row("mount", "mount, until it is live", "ms"),),
        run_mount,
        kinds=("fuse",),
    ),
    Workload(
        "commands",
        (
            Row("run-true", "`overlayd run -- true`, more than `true`", "ms"),
            Row("health", "`overlayd health`", "ms"),
        ),
        run_commands,
        only=ONLY_OVERLAYD,
    ),
    Workload(
        "preopens",
        _rows("preopens", "preopens", "one request, {:,} preopens side by side"),
        run_preopens,
        only=ONLY_OVERLAYD,
    ),
    Workload(
        "levels",
        _rows("levels", "levels", "one request, {:,} preopens in one another"),
        run_levels,
        only=ONLY_OVERLAYD,
    ),
    Workload(
        "memory",
        _rows("memory", "inodes", "memory per inode, {:,} known", "bytes"),
        run_memory,
        kinds=("fuse",),
        once=True,
    ),
    Workload(
        "mounts",
        (
            Row("mounts-memory", "memory of each of {mounts} idle mounts, median", "MB"),
            Row("mounts-memory-largest", "memory of each of {mounts} idle mounts, most", "MB"),
            Row("mounts-ticks", "ticks that they used in {quiet_seconds:.0f} s, all", "ticks"),
        ),
        run_mounts,
        kinds=("fuse",),
        once=True,
    ),
)

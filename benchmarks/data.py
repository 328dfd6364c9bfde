"""What is in files: read, written and mapped; a database; a guest that copies a large file.

Before each figure the caches are brought into one of these states, for each subject by the same
steps:

*cached*: the host's page cache holds the whole file, and the mount has none of its pages. What FUSE
mounts cache for themselves is dropped with posix_fadvise(DONTNEED) through the mount, and the file
then read once by its path on the host. For the directory itself and for the bind mount, which have
only the host's cache, that is a file in memory. A daemon is asked for every page, and finds it in
memory; with passthrough the kernel does. For writes it is the same: blocks of a file that is there
are written again, and go as far as the host's page cache, as nobody asks for more.

*uncached*: neither holds any page. What was written is brought to the disk (fsync by the path on
the host), and posix_fadvise(DONTNEED) is called through the mount and by the path on the host: for
the directory itself and the bind mount the two are one cache. That no page is left is looked up
(mincore), and where some are left, as on a tmpfs, there is no figure. So reads come from the disk
for everybody: with passthrough straight into the host's cache, for bindfs and for overlayd without
it by the daemon's read into the host's, and from there into that of the mount. Writes, again of
blocks that are there, end with an fsync through the mount, which is measured with them. O_DIRECT
would not do for either: bindfs does not open with it on the host, and no more does overlayd.

*again*: as cached, and all of it read before by the same process: where the mount has a cache of
its own, it is in there.

The disk is a file in memory, as `place` says: fast, yet with every step that a disk needs.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.measure import Planter, Row, Runner, Sizes, Turn, Workload, Workshop
from benchmarks.programs import RUN_WASMTIME
from benchmarks.subjects import DATA, FUSE, Subject, SubjectError, complete
from support import toolchain

MIB = 2**20
CACHED, UNCACHED, AGAIN, CLIENTS = "cached", "uncached", "again", "clients"
MOST_REPEATS = 8
MOST_PASSES = 64
PIECE = MIB
"""What is read at once, where it is only to be in the cache."""


@dataclass(frozen=True)
class Block:
    """A size of requests."""

    name: str
    title: str
    size: int

    def total(self, sizes: Sizes) -> int:
        """Bytes that are read or written, by all clients together."""
        return (sizes.small_mib if self.size <= 4096 else sizes.large_mib) * MIB


BLOCKS = (Block("4k", "4 KiB", 4096), Block("64k", "64 KiB", 65536), Block("1m", "1 MiB", MIB))
PAGE = Block("page", "a page", mmap.PAGESIZE)


@dataclass(frozen=True)
class Case:
    """One figure: how a file is gone through, in which state of the caches."""

    operation: str
    """Of the client: `read`, `write` or `map`."""
    block: Block
    at_random: bool
    state: str

    @property
    def name(self) -> str:
        """Of its row, such as `read-random-4k-cached`."""
        order = "random" if self.at_random else "sequential"
        return f"{self.operation}-{order}-{self.block.name}-{self.state}"

    @property
    def row(self) -> Row:
        """Its line of the table; per request."""
        order = "random" if self.at_random else "sequential"
        verb = "mmap, read" if self.operation == "map" else self.operation
        state = "{data_clients} clients, cached" if self.state == CLIENTS else self.state
        sync = ", with fsync" if (self.operation, self.state) == ("write", UNCACHED) else ""
        return Row(self.name, f"{verb} {self.block.title}, {order}, {state}{sync}", part=DATA)

    @property
    def goes_on(self) -> bool:
        """Whether it can be done over and over with the file open: it changes no cache."""
        return self.operation == "write" and self.state != UNCACHED

    def options(self, sizes: Sizes) -> list[str]:
        """For the client."""
        options = ["-o", "-b", str(self.block.size), "-c", str(self.clients(sizes))]
        options += ["-r"] * self.at_random + ["-w"] * (self.state == AGAIN)
        return options + ["-y"] * (self.operation == "write" and self.state == UNCACHED)

    def clients(self, sizes: Sizes) -> int:
        """How many at once, each with a file of its own."""
        return sizes.data_clients if self.state == CLIENTS else 1


# -- caches ---------------------------------------------------------------------------------------


def forget(path: Path) -> None:
    """Drop what the file system that shows a file at PATH has cached of it."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fetch(path: Path) -> None:
    """Have all of a file cached."""
    piece = bytearray(PIECE)
    with path.open("rb", buffering=0) as file:
        while file.readinto(piece):
            pass


def bring_to_disk(path: Path) -> None:
    """Wait until all that was written to a file is there: else its pages cannot be dropped."""
    with path.open("rb", buffering=0) as file:
        os.fsync(file.fileno())


def resident_pages(path: Path) -> int:
    """How many pages of a file are in memory. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (
        path.open("rb", buffering=0) as file,
        # Private and writable only so that ctypes can have its address: nothing is written.
        mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as pages,
    ):
        there = (ctypes.c_ubyte * -(-len(pages) // mmap.PAGESIZE))()
        view = ctypes.c_char.from_buffer(pages)
        address, size = ctypes.c_void_p(ctypes.addressof(view)), ctypes.c_size_t(len(pages))
        failed = libc.mincore(address, size, there)
        del view
    if failed:
        raise OSError(ctypes.get_errno(), "mincore", str(path))
    return sum(page & 1 for page in there)


def bring_into(state: str, subject: Subject, name: str) -> bool:
    """Bring a file's caches into STATE, of those at the top; False where it cannot be had."""
    source, shown = subject.source / name, subject.target / name
    if state != UNCACHED:
        if subject.kind == FUSE:
            forget(shown)
        fetch(source)
        return True
    bring_to_disk(source)
    forget(shown)
    forget(source)
    return resident_pages(source) == 0


# -- requests -------------------------------------------------------------------------------------


def files_of(case: Case, sizes: Sizes) -> list[str]:
    """Where the clients' files are, in the tree of a subject; none that is read is written."""
    number, kind = case.clients(sizes), "written" if case.operation == "write" else "read"
    top = f"data/{kind}-{case.block.total(sizes) // MIB}-{number}"
    return [f"{top}/c{client}/f0" for client in range(number)]


def plant_cases(cases: Sequence[Case]) -> Planter:
    """A planter of the files that CASES go through."""

    def plant(shop: Workshop, source: Path) -> None:
        for case in cases:
            clients = case.clients(shop.sizes)
            top = source / Path(files_of(case, shop.sizes)[0]).parents[1]
            if top.exists():
                continue  # other cases go through the same
            top.mkdir(parents=True)
            size = case.block.total(shop.sizes) // clients
            shop.client("plant", top, 1, "-o", "-c", str(clients), "-s", str(size))

    return plant


def run_cases(cases: Sequence[Case]) -> Runner:
    """A runner of one case after another."""

    def run(turn: Turn) -> dict[str, float]:
        found = {case.name: run_case(case, turn) for case in cases}
        return {name: value for name, value in found.items() if value is not None}

    return run


def run_case(case: Case, turn: Turn) -> float | None:
    """Nanoseconds per request, the median of repeats; None where the state cannot be had.

    What is quick is over before a timer has ticked once: so it is repeated, from the same state, or
    goes on where that does not change.
    """
    sizes = turn.sizes
    files = files_of(case, sizes)
    top = turn.at(str(Path(files[0]).parents[1]))
    count = case.block.total(sizes) // case.clients(sizes) // case.block.size
    client = partial(turn.shop.client, case.operation, top, count, *case.options(sizes))
    values: list[float] = []
    taken = 0.0
    while not values or (taken < sizes.long_enough and len(values) < MOST_REPEATS):
        if not all(bring_into(case.state, turn.subject, name) for name in files):
            return None
        values.append(client())
        taken += values[-1] * count * case.clients(sizes) / 1e9
        passes = min(int(sizes.going_on / taken), MOST_PASSES)
        if case.goes_on and passes > 1:
            return client("-p", str(passes))
    return median(values)


def cases_of(operation: str, block: Block) -> list[Case]:
    """Both orders, in the states that such requests are measured in."""
    states = [CACHED, UNCACHED, *([CLIENTS] if operation != "map" else [])]
    if operation == "read" and block.size <= 4096:
        states.insert(2, AGAIN)
    return [Case(operation, block, order, state) for order in (False, True) for state in states]


def workload(operation: str, block: Block) -> Workload:
    """One size of requests of one kind: short, so that its subjects' turns are close together."""
    cases = cases_of(operation, block)
    return Workload(
        operation if operation == "map" else f"{operation}-{block.name}",
        tuple(case.row for case in cases),
        run_cases(cases),
        plant_cases(cases),
    )


# -- a database -----------------------------------------------------------------------------------


JOURNALS = {"sqlite": "delete", "sqlite-wal": "wal"}
"""Row, and SQLite's way of keeping transactions whole: its default, and the other common one."""


def plant_database(_: Workshop, source: Path) -> None:
    """A place for it."""
    (source / "sqlite").mkdir()


def run_database(turn: Turn) -> dict[str, float]:
    """Many small transactions, each of which SQLite brings to the disk; per transaction."""
    return {row: transactions(turn, row, journal) for row, journal in JOURNALS.items()}


def transactions(turn: Turn, row: str, journal: str) -> float:
    """Those of one database, which is new, and gone afterwards. Raises SubjectError."""
    number = turn.sizes.transactions
    for left in (turn.subject.source / "sqlite").glob(f"{row}.db*"):
        left.unlink()
    path = turn.at("sqlite") / f"{row}.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        (mode,) = database.execute(f"PRAGMA journal_mode = {journal}").fetchone()
        database.execute("PRAGMA synchronous = FULL")
        database.execute("CREATE TABLE notes (number INTEGER PRIMARY KEY, text TEXT)")
        begun = time.perf_counter_ns()
        for _ in range(number):
            database.execute("INSERT INTO notes (text) VALUES (?)", ("x" * 200,))
        taken = time.perf_counter_ns() - begun
    with closing(sqlite3.connect(turn.subject.source / "sqlite" / path.name)) as database:
        (found,) = database.execute("SELECT count(*) FROM notes").fetchone()
    if (mode, found) != (journal, number):
        raise SubjectError(f"journal {mode} and {found} rows instead of {journal} and {number}")
    return taken / number


# -- a guest --------------------------------------------------------------------------------------


def plant_copy(_: Workshop, source: Path) -> None:
    """An empty directory; and the guest and its runtime, where they have not been made yet."""
    toolchain.guest("copy_file")
    toolchain.wasmtime_package(toolchain.NEWEST)
    (source / "copy").mkdir()


def run_copy(turn: Turn) -> dict[str, float]:
    """A guest copies a large file, whose pages the host has, and takes the time itself.

    The files exist for this turn only: so many of that size would not find room side by side.
    """
    place, size = turn.subject.source / "copy", turn.sizes.copy_mib * MIB
    try:
        with (place / "from").open("wb", buffering=0) as file:
            for _ in range(size // PIECE):
                file.write(bytes(PIECE))
            os.fsync(file.fileno())
        words = [sys.executable, str(RUN_WASMTIME), "--dir", f"{turn.at('copy')}::/"]
        words += [str(toolchain.guest("copy_file")), "/from", "/to"]
        package = str(toolchain.wasmtime_package(toolchain.NEWEST))
        said = json.loads(complete(words, env=os.environ | {"PYTHONPATH": package}, timeout=300))
        if said["bytes"] != size or (place / "to").stat().st_size != size:
            raise SubjectError(f"the guest copied {said['bytes']} bytes instead of {size}")
    finally:
        for name in ("from", "to"):
            (place / name).unlink(missing_ok=True)
        give_back(turn.shop.place)
    return {"wasmtime-copy": said["ns"]}


def give_back(place: Path) -> None:
    """Let the memory go in which the own file system keeps what was removed by now."""
    if place.is_mount():
        subprocess.run(["fstrim", str(place)], capture_output=True, check=False, timeout=60)


WORKLOADS = (
    *(workload("read", block) for block in BLOCKS),
    *(workload("write", block) for block in BLOCKS),
    workload("map", PAGE),
    Workload(
        "sqlite",
        (
            Row("sqlite", "SQLite, each of {transactions} transactions", part=DATA),
            Row("sqlite-wal", "SQLite with a write-ahead log, the same", part=DATA),
        ),
        run_database,
        plant_database,
    ),
    Workload(
        "copy",
        (Row("wasmtime-copy", "guest under wasmtime copies {copy_mib:,} MiB", "ms", DATA),),
        run_copy,
        plant_copy,
    ),
)

ROWS = tuple(row.name for one in WORKLOADS for row in one.rows)
SMALL_REQUESTS = tuple(
    case.name
    for operation in ("read", "write")
    for case in cases_of(operation, BLOCKS[0])
    if case.state != AGAIN
)
"""Of 4 KiB, and such that a daemon is asked: again it is not, and everybody is the kernel."""

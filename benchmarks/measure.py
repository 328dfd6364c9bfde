"""How it is measured: every workload on every subject, in turn, several rounds long."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.subjects import NAMES, Subject, complete

CLIENT = Path(__file__).with_name("client.c")
TIMES = ("us", "ms", "s")
"""Units that are shown of nanoseconds."""


@dataclass(frozen=True)
class Sizes:
    """How much of everything, and how often."""

    rounds: int = 5
    files: int = 2_000
    """In one directory, for what is done file by file."""
    passes: int = 10
    """Over what is warm: one of them is too short to measure."""
    open_passes: int = 3
    """The same for opens, of which each is a request."""
    small_lists: int = 200
    large_list: int = 10_000
    walk: int = 50_000
    git: int = 10_000
    tar: int = 2_000
    guest: int = 10_000
    clients: tuple[int, ...] = (1, 2, 8, 16)
    client_files: int = 1_600
    """Shared out among all clients."""
    preopens: tuple[int, ...] = (1, 10, 100, 1_000)
    levels: tuple[int, ...] = (1, 10, 100)
    growth_files: int = 250
    growth_parts: int = 4
    inodes: tuple[int, ...] = (1_000, 10_000, 100_000)
    mounts: int = 100
    quiet_seconds: float = 5.0
    small_mib: int = 16
    """Of data in blocks of 4 KiB, by all clients together."""
    large_mib: int = 32
    """The same in larger blocks."""
    data_clients: int = 4
    long_enough: float = 0.02
    """Seconds that the repeats of what is quick are to take together."""
    going_on: float = 0.2
    """The same for what goes on with a file that is open."""
    transactions: int = 100
    copy_mib: int = 64


SIZES = {
    "default": Sizes(),
    "full": Sizes(
        rounds=9,
        inodes=(1_000, 10_000, 100_000, 1_000_000),
        quiet_seconds=20.0,
        transactions=300,
        copy_mib=1024,
    ),
    "quick": Sizes(
        rounds=3,
        files=500,
        small_lists=50,
        large_list=2_000,
        walk=5_000,
        git=1_000,
        tar=300,
        guest=1_000,
        clients=(1, 8),
        client_files=400,
        preopens=(1, 10, 100),
        levels=(1, 10),
        growth_files=100,
        inodes=(1_000, 10_000),
        mounts=10,
        quiet_seconds=2.0,
        small_mib=2,
        large_mib=8,
        transactions=30,
        copy_mib=16,
    ),
    "tiny": Sizes(
        rounds=1,
        files=20,
        passes=2,
        open_passes=1,
        small_lists=2,
        large_list=50,
        walk=100,
        git=20,
        tar=20,
        guest=20,
        clients=(1, 2),
        client_files=20,
        preopens=(1, 3),
        levels=(1, 3),
        growth_files=5,
        growth_parts=2,
        inodes=(100, 200),
        mounts=2,
        quiet_seconds=0.5,
        small_mib=1,
        large_mib=2,
        data_clients=2,
        long_enough=0,
        going_on=0,
        transactions=3,
        copy_mib=1,
    ),
}


def numbers_of(name: str) -> list[int]:
    """Every number of clients, preopens or the like that any size has."""
    return sorted({number for sizes in SIZES.values() for number in getattr(sizes, name)})


class Workshop:
    """What all workloads need, made once: the compiled client, and room for what is shared."""

    def __init__(self, place: Path, sizes: Sizes) -> None:
        self.place = place
        self.sizes = sizes
        self.scratch = place / "workshop"
        self.scratch.mkdir()
        self._client = self.scratch / "client"
        complete(["gcc", "-O2", "-o", str(self._client), str(CLIENT)])

    def client(self, operation: str, directory: Path, count: int, *options: str) -> float:
        """Nanoseconds per operation, of all clients together. Raises SubjectError."""
        words = [str(self._client), operation, str(directory), str(count), *options]
        elapsed, done = complete(words, timeout=300).split()
        return int(elapsed) / int(done)

    def timed(self, words: Sequence[str], env: Mapping[str, str] | None = None) -> float:
        """Nanoseconds that a command takes from start to end. Raises SubjectError if it fails."""
        begun = time.perf_counter_ns()
        complete(words, timeout=300, env=env)
        return time.perf_counter_ns() - begun


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    title: str
    unit: str = "us"
    """What it is shown in: `us`, `ms`, `s` (measured in nanoseconds), `bytes`, `MB` or `ticks`.

    Less is better, always: for the speed of data, take the time of a request.
    """
    part: str = NAMES
    """Of which table it is a line; `subjects` says who takes part in which."""


@dataclass(frozen=True)
class Turn:
    """One subject's turn at one workload in one round."""

    subject: Subject
    number: int
    shop: Workshop

    @property
    def sizes(self) -> Sizes:
        """How much of everything."""
        return self.shop.sizes

    def at(self, name: str) -> Path:
        """A directory of the tree, as the subject shows it."""
        return self.subject.target / name


Planter = Callable[[Workshop, Path], None]
Runner = Callable[[Turn], dict[str, float]]


def nothing(_: Workshop, __: Path) -> None:
    """For workloads that need no files to begin with."""


@dataclass(frozen=True)
class Workload:
    """Something to do: what it needs in a tree, and how one subject does it once.

    `run` answers with a value for each of `rows`: nanoseconds, bytes or ticks. What it creates it
    takes away; what it leaves all the same is found by its next turn.
    """

    name: str
    rows: tuple[Row, ...]
    run: Runner
    plant: Planter = nothing
    kinds: tuple[str, ...] = ("native", "kernel", "fuse")
    """Which kinds of subjects take part."""
    only: str = ""
    """The one program that takes part, with the variants of it; empty for all."""
    once: bool = False
    """In the first round only."""

    def admits(self, subject: Subject) -> bool:
        """Whether the subject takes part."""
        family = subject.name.partition("-")[0]
        fits = subject.kind in self.kinds and (not self.only or self.only == family)
        return fits and self.rows[0].part in subject.parts


@dataclass
class Results:
    """What was measured: row, subject, round → value; and what failed."""

    values: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)
    """Seconds, by workload: whose turn it is to become cheaper."""

    def record(self, row: str, subject: str, number: int, value: float) -> None:
        """Note one value."""
        self.values.setdefault(row, {}).setdefault(subject, {})[number] = value

    def note_time(self, workload: str, seconds: float) -> None:
        """Add to the time that a workload took, everything around it included."""
        self.spent[workload] = self.spent.get(workload, 0.0) + seconds

    def fail(self, what: str, error: Exception) -> None:
        """Note and tell what did not work; the rest goes on."""
        self.failures.append(f"{what}: {type(error).__name__}: {error}")
        print(f"FAILED {self.failures[-1]}", file=sys.stderr, flush=True)


class Session:
    """All rounds of some workloads on some subjects."""

    def __init__(self, shop: Workshop, subjects: list[Subject], workloads: list[Workload]) -> None:
        self._shop, self._workloads = shop, workloads
        self._subjects = subjects
        self._unfit: set[tuple[str, str]] = set()
        """Workload and subject: what it needs could not be made."""
        self.results = Results()

    def prepare(self) -> None:
        """Plant everything and mount everybody; who cannot be mounted takes no part."""
        for subject in list(self._subjects):
            tell(f"planting: {subject.name}")
            for workload in self._workloads:
                if workload.admits(subject):
                    self._plant(workload, subject)
            self._guarded(subject, subject.mount)

    def _plant(self, workload: Workload, subject: Subject) -> None:
        try:
            workload.plant(self._shop, subject.source)
        except Exception as error:
            self._unfit.add((workload.name, subject.name))
            self.results.fail(f"planting {workload.name} for {subject.name}", error)

    def _guarded(self, subject: Subject, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self._subjects.remove(subject)
            self.results.fail(f"{subject.name}, left out from now on", error)

    def run(self) -> None:
        """All rounds. In each all FUSE subjects are mounted anew, and another one begins."""
        for number in range(self._shop.sizes.rounds):
            for subject in list(self._subjects) if number else []:
                self._guarded(subject, subject.renew)
            os.sync()  # what the disk still has to do would be done meanwhile
            self._round(number)

    def _round(self, number: int) -> None:
        taken: dict[str, float] = {}
        for workload in self._workloads:
            if number and workload.once:
                continue
            tell(f"round {number + 1}: {workload.name}")
            begun = time.monotonic()
            self._take_turns(workload, number)
            taken[workload.name] = time.monotonic() - begun
            self.results.note_time(workload.name, taken[workload.name])
        longest = sorted(taken, key=lambda name: -taken[name])[:4]
        shares = ", ".join(f"{name} {taken[name]:.0f}" for name in longest)
        tell(f"round {number + 1} took {sum(taken.values()):.0f} s ({shares}, ...)", keep=True)

    def _take_turns(self, workload: Workload, number: int) -> None:
        taking_part = [subject for subject in self._subjects if workload.admits(subject)]
        first = number % max(len(taking_part), 1)
        for subject in taking_part[first:] + taking_part[:first]:
            if (workload.name, subject.name) in self._unfit:
                continue
            try:
                values = workload.run(Turn(subject, number, self._shop))
            except Exception as error:
                self.results.fail(f"{workload.name} on {subject.name}", error)
                continue
            for row, value in values.items():
                self.results.record(row, subject.name, number, value)


def tell(text: str, keep: bool = False) -> None:
    """Say on stderr how far it is: in one line on a terminal, a few lines elsewhere."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="\n" if keep else "", file=sys.stderr, flush=True)
    elif keep:
        print(text, file=sys.stderr, flush=True)


def memory_of(pid: int) -> int:
    """Bytes that a process holds: its own, and its share of what it shares (PSS)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return (
        next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) * 1024
    )


def run_quietly(words: Sequence[str]) -> None:
    """A command that prepares something. Raises CalledProcessError."""
    subprocess.run(words, check=True, capture_output=True, timeout=300)

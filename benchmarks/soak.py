#!/usr/bin/env python3
"""The whole mix of load on one mount, for as long as wanted, and what the daemon holds meanwhile.

`make soak SECONDS=3600` prepares what this needs and calls it; root is needed. All the time, under
`ulimit -n 256`: processes change one tree of nested preopens, others compare files with a model,
one walks a large tree, one uses a source on a slow file system. After each round everything is
compared with the host, the kernel is told to forget what it knows, and the daemon is asked what it
still holds. The exit status is 1 if anything differed or grew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import file_exerciser, tree_load
from support.counting import CountedMount, Vitals
from support.moody_source import MoodySource, moody_source
from support.mounting import detach, overlayd

DESCRIPTORS = 256
FILES_IN_A_DIRECTORY = 500
SLOW = 0.005
"""Seconds that each request to the slow source takes."""
WARM_UP = 2
"""Rounds after which all that is made once has been made."""
EXACT = ("descriptors", "tasks", "nodes", "handles")
"""What is to be as it was after the warm-up, after every round."""
ROOM = {"blocks": 2_000, "c_bytes": 500_000, "threads": 4}
"""By how much what varies may be more in the last third of the rounds than in the first."""


class Soak:
    """The sources, the mount, and what was done."""

    def __init__(self, place: Path, moody: MoodySource, files: int) -> None:
        self._place = place
        self._moody = moody
        self.large, self.outer, self.inner, self.plain = (
            place / name for name in ("large", "outer", "inner", "plain")
        )
        self.target = place / "target"
        for directory in (self.large, self.plain, self.target):
            directory.mkdir()
        for top in (self.outer, self.inner):
            for number in range(tree_load.DIRECTORIES):
                (top / f"d{number}").mkdir(parents=True)
        self.files = make_large(self.large, files)
        moody.order(delays={"*": SLOW})
        self.mount = CountedMount(self.target, place / "answer", self._flags(), DESCRIPTORS)
        self.done: Counter[str] = Counter()
        self.rounds: list[Vitals] = []
        self.most_descriptors = 0
        self.peaks: list[int] = []
        """The most memory of each round, in KiB."""

    def _flags(self) -> list[str]:
        dirs = {"/": self.outer, "/d1/nest": self.inner, "/large": self.large}
        dirs |= {"/plain": self.plain, "/slow": self._moody.path}
        flags = [f"{host}::{guest}" for guest, host in dirs.items()]
        log = ["--log-file", str(self._place / "log")]
        return [word for flag in flags for word in ("--dir", flag)] + log

    def round(self, number: int, seconds: float) -> None:
        """Everything at once for SECONDS; then compare, forget, and ask."""
        tops = [self.target, self.target / "d1/nest"]
        trees = tree_load.start(tops, [number * 10 + worker for worker in range(3)], seconds)
        files = [self._exercise(number * 2 + which, seconds) for which in (0, 1)]
        self.peaks.append(0)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._walk_some(end)
            self._watch()
        counts = tree_load.collect(trees, seconds + 60)
        self.done.update({what: n for what, n in counts.items() if " " not in what})
        wrong = tree_load.unexpected(counts)
        assert not wrong, wrong
        for process in files:
            said, _ = process.communicate(timeout=seconds + 60)
            assert process.returncode == 0, "a file differs from its model"
            self.done["steps on files compared with a model"] += int(said)
        self._compare()
        self.rounds.append(self._forget())

    def _exercise(self, seed: int, seconds: float) -> subprocess.Popen[str]:
        words = [file_exerciser.__file__, str(self.target / "plain"), str(seed), f"{seconds}s"]
        return subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)

    def _walk_some(self, end: float) -> None:
        for number, directory in enumerate(sorted(os.listdir(self.target / "large"))):
            if number % 50 == 0:
                self._use_slow()
                self._watch()
            names = os.listdir(self.target / "large" / directory)
            assert len(names) == len(set(names)) == FILES_IN_A_DIRECTORY
            for name in names:
                os.stat(self.target / "large" / directory / name)
            self.done["files of the large tree looked at"] += len(names)
            if time.monotonic() > end:
                return
        self.done["whole walks of the large tree"] += 1

    def _watch(self) -> None:
        now = self.mount.vitals()
        self.most_descriptors = max(self.most_descriptors, now.descriptors)
        self.peaks[-1] = max(self.peaks[-1], now.resident_kib)

    def _use_slow(self) -> None:
        path = self.target / "slow/file"
        path.write_bytes(b"slow" * 1000)
        assert path.read_bytes() == b"slow" * 1000
        self.done["files on the slow source"] += 1
        os.unlink(path)

    def _compare(self) -> None:
        """The changed tree against the host; then it is emptied."""
        mask = frozenset(("d1/nest", "large", "plain", "slow"))
        shown = tree_load.snapshot(self.target, mask)
        shown |= tree_load.snapshot(self.target / "d1/nest", prefix="d1/nest/")
        expected = tree_load.snapshot(self.outer)
        expected |= tree_load.snapshot(self.inner, prefix="d1/nest/")
        assert shown == expected, "the tree differs from the host's"
        self.done["names compared with the host"] += len(shown)
        for top in (self.target, self.target / "d1/nest"):
            for number in range(tree_load.DIRECTORIES):
                empty(top / f"d{number}", keep="nest")

    def _forget(self) -> Vitals:
        """What is held once the kernel has forgotten everything, which takes a moment."""
        for _ in range(20):
            Path("/proc/sys/vm/drop_caches").write_text("2")
            time.sleep(0.5)
            now = self.mount.vitals()
            if len(self.rounds) > WARM_UP and _exactly(now) == _exactly(self.rounds[WARM_UP]):
                break
        return now

    def grown(self) -> list[str]:
        """What was not given back, or is more and more.

        Memory is judged by what is in use. How much the process holds is as much as was needed at
        once, for the inodes that the kernel knew: an allocator gives whole arenas back, and one
        object in each is enough to keep them.
        """
        rounds = self.rounds[WARM_UP:]
        if len(rounds) < 3:
            return ["nothing can be said: too few rounds"]
        kept = {_exactly(now) for now in rounds}
        wrong = [f"{EXACT}: {', '.join(map(str, sorted(kept)))}"] if len(kept) > 1 else []
        third = len(rounds) // 3
        for field, room in ROOM.items():
            values = [getattr(now, field) for now in rounds]
            first, last = median(values[:third]), median(values[-third:])
            if last > first + room:
                wrong.append(f"{field}: {first:,.0f} -> {last:,.0f}")
        highest = max(self.peaks[: WARM_UP + third])
        held = median(now.resident_kib for now in rounds[-third:])
        if held > highest:
            wrong.append(f"resident_kib: {highest:,} at most -> {held:,.0f} with nothing to hold")
        return wrong


def _exactly(now: Vitals) -> tuple[int, ...]:
    return tuple(getattr(now, field) for field in EXACT)


def make_large(top: Path, files: int) -> int:
    for number in range(files // FILES_IN_A_DIRECTORY):
        directory = top / f"d{number}"
        directory.mkdir()
        for file in range(FILES_IN_A_DIRECTORY):
            os.close(os.open(directory / f"f{file}", os.O_CREAT | os.O_WRONLY))
    return files // FILES_IN_A_DIRECTORY * FILES_IN_A_DIRECTORY


def empty(directory: Path, keep: str) -> None:
    for entry in os.scandir(directory):
        if entry.name == keep:
            continue
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def report(soak: Soak, seconds: float) -> None:
    print(f"\n{seconds:.0f} s, {len(soak.rounds)} rounds; what was done:")
    for what, count in soak.done.most_common():
        print(f"  {count:>12,} {what}")
    print(f"  {soak.most_descriptors:>12,} descriptors at most, of {DESCRIPTORS}")


def run(place: Path, seconds: float, files: int) -> int:
    with ExitStack() as stack:
        moody = stack.enter_context(moody_source(place / "moody"))
        soak = Soak(place, moody, files)
        stack.callback(detach, soak.target)
        print(f"{soak.files:,} files; after each round the daemon holds")
        print(" ".join(f"{field:>12}" for field in ("seconds", "peak_kib", *Vitals._fields)))
        begun = time.monotonic()
        length = min(60.0, seconds / 8)
        while time.monotonic() - begun < seconds:
            soak.round(len(soak.rounds), length)
            figures = (round(time.monotonic() - begun), soak.peaks[-1], *soak.rounds[-1])
            print(" ".join(f"{figure:>12,}" for figure in figures), flush=True)
        report(soak, time.monotonic() - begun)
        overlayd("umount", str(soak.target))
        if "Traceback" in (place / "log").read_text():
            print((place / "log").read_text())
            return 1
    grown = soak.grown()
    print("\n".join(["GREW:", *grown]) if grown else "nothing grew, nothing differed")
    return int(bool(grown))


def main() -> int:
    """Make everything in a temporary directory, and take it away again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--files", type=int, default=200_000, help="in the large tree")
    parser.add_argument("--in", dest="place", default=None, help="where the trees are made")
    arguments = parser.parse_args()
    place = Path(tempfile.mkdtemp(prefix="overlayd-soak-", dir=arguments.place)).resolve()
    os.environ["OVERLAYD_RUNTIME_DIR"] = str(place / "run")
    try:
        return run(place, arguments.seconds, arguments.files)
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    sys.exit(main())

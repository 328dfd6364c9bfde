"""Random changes of one tree, for many processes at once: `tree_load.py SEED SECONDS TOP…`.

Each TOP is a directory with directories d0, d1, …; names are few, so that processes collide all
the time. Prints as JSON how often each operation succeeded and with which errno each failed.
"""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

DIRECTORIES = 4
NAMES = 12

EXPECTED = frozenset(
    ("ENOENT", "EEXIST", "ENOTEMPTY", "EISDIR", "ENOTDIR", "EXDEV", "EBUSY", "EINVAL", "EPERM")
    + ("ELOOP", "EACCES")
)
"""What colliding processes see on any file system, and EXDEV and EBUSY of mount points."""


class Worker:
    """One process's share."""

    def __init__(self, seed: int, tops: Sequence[Path]) -> None:
        self._random = random.Random(seed)
        self._tops = tops
        self.counts: Counter[str] = Counter()

    def step(self) -> None:
        """One operation, counted under its name, or its name and errno."""
        name = self._random.choice(
            ["create"] * 8
            + ["unlink", "rename", "exchange", "link"] * 3
            + ["symlink", "mkdir", "rmdir", "listing", "append", "read", "stat"] * 2
            + ["walk"]
        )
        try:
            getattr(self, f"_{name}")()
        except OSError as error:
            self.counts[f"{name} {errno.errorcode.get(error.errno or 0, str(error.errno))}"] += 1
        else:
            self.counts[name] += 1

    def _path(self) -> Path:
        rnd = self._random
        place = rnd.choice(self._tops) / f"d{rnd.randrange(DIRECTORIES)}"
        if rnd.random() < 0.3:
            place /= f"n{rnd.randrange(NAMES)}"
        return place / f"n{rnd.randrange(NAMES)}"

    def _create(self) -> None:
        fd = os.open(self._path(), os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o644)
        try:
            os.write(fd, self._random.randbytes(self._random.randrange(200)))
        finally:
            os.close(fd)

    def _append(self) -> None:
        fd = os.open(self._path(), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        try:
            os.write(fd, b"more")
        finally:
            os.close(fd)

    def _read(self) -> None:
        self._path().read_bytes()

    def _stat(self) -> None:
        os.lstat(self._path())

    def _unlink(self) -> None:
        os.unlink(self._path())

    def _rename(self) -> None:
        os.rename(self._path(), self._path())

    def _exchange(self) -> None:
        """Three renames; another process may come in between."""
        one, two = self._path(), self._path()
        spare = one.with_name(f"spare{os.getpid()}")
        os.rename(one, spare)
        try:
            os.rename(two, one)
        finally:
            os.rename(spare, two)

    def _link(self) -> None:
        os.link(self._path(), self._path(), follow_symlinks=False)

    def _symlink(self) -> None:
        os.symlink(f"n{self._random.randrange(NAMES)}", self._path())

    def _mkdir(self) -> None:
        os.mkdir(self._path())

    def _rmdir(self) -> None:
        os.rmdir(self._path())

    def _listing(self) -> None:
        names = os.listdir(self._path().parent)
        if len(names) != len(set(names)):
            raise OSError(errno.EUCLEAN, "a name twice")

    def _walk(self) -> None:
        for _ in os.walk(
            self._random.choice(self._tops) / f"d{self._random.randrange(DIRECTORIES)}"
        ):
            pass


def start(
    tops: Sequence[Path], seeds: Sequence[int], seconds: float
) -> list[subprocess.Popen[str]]:
    """One process per seed, at work."""
    words = [str(seconds), *map(str, tops)]
    return [
        subprocess.Popen(
            [sys.executable, __file__, str(seed), *words], stdout=subprocess.PIPE, text=True
        )
        for seed in seeds
    ]


def collect(processes: Sequence[subprocess.Popen[str]], seconds: float) -> Counter[str]:
    """What all of them counted, once all have ended; SECONDS is when they hang."""
    total: Counter[str] = Counter()
    try:
        for process in processes:
            said, _ = process.communicate(timeout=seconds)
            assert process.returncode == 0
            total.update(json.loads(said))
    finally:
        for process in processes:
            process.kill()
    return total


def unexpected(counts: Counter[str]) -> dict[str, int]:
    """What should not have happened, of what was counted."""
    failed = {what: count for what, count in counts.items() if " " in what}
    return {what: n for what, n in failed.items() if what.split()[1] not in EXPECTED}


class Thing(NamedTuple):
    """One name in a snapshot."""

    kind: int
    content: bytes
    names: frozenset[str]
    """All names of a file that has several."""


def snapshot(top: Path, masked: frozenset[str] = frozenset(), prefix: str = "") -> dict[str, Thing]:
    """Every name below TOP but those MASKED: type, content, link group; PREFIX goes before it."""
    found: dict[str, tuple[int, bytes, tuple[int, int]]] = {}
    groups: dict[tuple[int, int], set[str]] = {}
    for directory, directories, files in os.walk(top):
        for name in (*directories, *files):
            path = Path(directory, name)
            shown = prefix + str(path.relative_to(top))
            if shown in masked:
                continue
            status = path.lstat()
            key = (status.st_dev, status.st_ino)
            content = b""
            if path.is_symlink():
                content = os.fsencode(os.readlink(path))
            elif path.is_file():
                content = path.read_bytes()
                assert len(content) == status.st_size
                groups.setdefault(key, set()).add(shown)
            found[shown] = (status.st_mode & 0o170000, content, key)
        directories[:] = [
            d
            for d in directories
            if prefix + str(Path(directory, d).relative_to(top)) not in masked
        ]
    return {
        shown: Thing(kind, content, frozenset(groups.get(key, ())))
        for shown, (kind, content, key) in found.items()
    }


def main() -> None:
    worker = Worker(int(sys.argv[1]), [Path(top) for top in sys.argv[3:]])
    end = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        worker.step()
    json.dump(worker.counts, sys.stdout)


if __name__ == "__main__":
    main()

"""Random operations on one file, each compared with a model: `file_exerciser.py DIR SEED STEPS`.

Stops at the first difference and says which step of which seed it was. STEPS may be a time: `60s`.
"""

from __future__ import annotations

import mmap
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

PAGE = mmap.PAGESIZE
GIB = 1 << 30

SMALL = (0,)
SPARSE = (0, 2 * GIB - PAGE, 4 * GIB - 3 * PAGE, 5 * GIB)
"""Where windows of the file begin; operations happen within `_WINDOW` bytes behind them."""

_WINDOW = 256 * 1024
_LONGEST = 100_000


class Model:
    """What a file holds, by page; pages that were never written are zeros."""

    def __init__(self) -> None:
        self.size = 0
        self._pages: dict[int, bytearray] = {}

    def read(self, offset: int, length: int) -> bytes:
        """As pread(2): fewer bytes at the end of the file."""
        length = max(0, min(length, self.size - offset))
        pieces = []
        while length > 0:
            page, start = divmod(offset, PAGE)
            count = min(PAGE - start, length)
            pieces.append(bytes(self._pages.get(page, bytes(PAGE))[start : start + count]))
            offset, length = offset + count, length - count
        return b"".join(pieces)

    def write(self, offset: int, data: bytes) -> None:
        """As pwrite(2)."""
        self.size = max(self.size, offset + len(data))
        while data:
            page, start = divmod(offset, PAGE)
            piece, data = data[: PAGE - start], data[PAGE - start :]
            self._pages.setdefault(page, bytearray(PAGE))[start : start + len(piece)] = piece
            offset += len(piece)

    def truncate(self, size: int) -> None:
        """As ftruncate(2): what was cut off comes back as zeros."""
        if size < self.size:
            last, start = divmod(size, PAGE)
            for page in [page for page in self._pages if page > last]:
                del self._pages[page]
            if last in self._pages:
                self._pages[last][start:] = bytes(PAGE - start)
        self.size = size


class Exerciser:
    """One file in DIRECTORY and what it must hold."""

    def __init__(self, directory: Path, seed: int, windows: Sequence[int] = SMALL) -> None:
        self.model = Model()
        self._random = random.Random(seed)
        self._seed = seed
        self._windows = windows
        self._directory = directory
        self._path = directory / f"file-{seed}"
        self._renamed = 0
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self.done: dict[str, int] = {}
        self._operations: list[Callable[[], None]] = [
            *[self._write, self._write, self._append, self._overwrite_two],
            *[self._read, self._read, self._truncate, self._truncate_by_name],
            *[self._map_write, self._map_write, self._map_read],
            *[self._fsync, self._rename, self._reopen, self._replace],
        ]

    def step(self) -> None:
        """One random operation, then a look at what it left."""
        operation = self._random.choice(self._operations)
        name = operation.__name__.strip("_")
        self.done[name] = count = self.done.get(name, 0) + 1
        try:
            operation()
            self._look()
        except (AssertionError, OSError) as problem:
            total = sum(self.done.values())
            raise AssertionError(
                f"seed {self._seed}, step {total} ({name} {count}): {problem!r}"
            ) from problem

    def finish(self, host: Path | None = None) -> None:
        """Compare all of the file, by its name, and on the HOST's directory; then remove it."""
        os.close(self._fd)
        for directory in (self._directory, host or self._directory):
            with open(directory / self._path.name, "rb") as file:
                assert os.fstat(file.fileno()).st_size == self.model.size, directory
                for window in self._windows:
                    length = _WINDOW + _LONGEST
                    got = os.pread(file.fileno(), length, window)
                    self._same(got, window, length)
        os.unlink(self._path)

    # -- operations -----------------------------------------------------------------------------

    def _place(self) -> tuple[int, int]:
        """A random offset and length; often the offset is that of a page, or next to it."""
        rnd = self._random
        offset = rnd.choice(self._windows) + rnd.randrange(_WINDOW)
        if rnd.random() < 0.4:
            offset = max(0, offset // PAGE * PAGE + rnd.randint(-1, 1))
        return offset, rnd.choice((1, rnd.randrange(1, 5000), rnd.randrange(1, _LONGEST)))

    def _write_at(self, offset: int, data: bytes, fd: int) -> None:
        count = os.pwrite(fd, data, offset)
        assert count == len(data), f"{count} of {len(data)} bytes written"
        self.model.write(offset, data)

    def _write(self) -> None:
        offset, length = self._place()
        self._write_at(offset, self._random.randbytes(length), self._fd)

    def _append(self) -> None:
        if self.model.size > max(self._windows) + _WINDOW:
            return self._truncate()
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        try:
            data = self._random.randbytes(self._random.randrange(1, 3000))
            assert os.write(fd, data) == len(data)
            self.model.write(self.model.size, data)
        finally:
            os.close(fd)

    def _overwrite_two(self) -> None:
        """Through two descriptors, one over the other."""
        offset, length = self._place()
        other = os.open(self._path, os.O_RDWR)
        try:
            self._write_at(offset, self._random.randbytes(length), other)
            self._write_at(offset + length // 2, self._random.randbytes(length), self._fd)
        finally:
            os.close(other)

    def _read(self) -> None:
        offset, length = self._place()
        self._same(os.pread(self._fd, length, offset), offset, length)

    def _truncate(self) -> None:
        size = self._place()[0]
        os.ftruncate(self._fd, size)
        self.model.truncate(size)

    def _truncate_by_name(self) -> None:
        size = self._place()[0]
        os.truncate(self._path, size)
        self.model.truncate(size)

    def _mapped(self) -> tuple[int, int] | None:
        """A page-aligned piece that lies wholly within the file."""
        offset, length = self._place()
        offset = offset // PAGE * PAGE
        length = min(length, self.model.size - offset)
        return (offset, length) if length > 0 else None

    def _map_write(self) -> None:
        piece = self._mapped()
        if piece is None:
            return
        offset, length = piece
        data = self._random.randbytes(length)
        with mmap.mmap(self._fd, length, offset=offset) as mapped:
            mapped[:] = data
            if self._random.random() < 0.5:
                mapped.flush()
        self.model.write(offset, data)

    def _map_read(self) -> None:
        piece = self._mapped()
        if piece is not None:
            with mmap.mmap(self._fd, piece[1], offset=piece[0], prot=mmap.PROT_READ) as mapped:
                self._same(mapped[:], *piece)

    def _fsync(self) -> None:
        self._random.choice((os.fsync, os.fdatasync))(self._fd)

    def _rename(self) -> None:
        self._renamed += 1
        new = self._directory / f"file-{self._seed}-{self._renamed}"
        os.rename(self._path, new)
        self._path = new

    def _reopen(self) -> None:
        os.close(self._fd)
        self._fd = os.open(self._path, os.O_RDWR)

    def _replace(self) -> None:
        """Write anew and rename into place, as editors do."""
        if self._random.random() < 0.7:
            return
        new = self._directory / f"file-{self._seed}-new"
        os.close(self._fd)
        self._fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        self.model = Model()
        self._write()
        os.rename(new, self._path)

    # -- comparing ------------------------------------------------------------------------------

    def _look(self) -> None:
        size = os.fstat(self._fd).st_size
        assert size == self.model.size, f"size {size}, not {self.model.size}"
        assert os.stat(self._path).st_size == size
        offset, length = self._place()
        self._same(os.pread(self._fd, length, offset), offset, length)

    def _same(self, got: bytes, offset: int, length: int) -> None:
        expected = self.model.read(offset, length)
        if got == expected:
            return
        pairs = enumerate(zip(got, expected, strict=False))
        at = next((i for i, (g, e) in pairs if g != e), min(len(got), len(expected)))
        raise AssertionError(
            f"{length} bytes at {offset}: {len(got)} came, {len(expected)} expected,"
            f" different from {offset + at} on"
        )


def main() -> None:
    directory, seed, steps = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    exerciser = Exerciser(directory, seed, SPARSE if seed % 2 else SMALL)
    begun, count = time.monotonic(), 0

    def goes_on() -> bool:
        if steps.endswith("s"):
            return time.monotonic() - begun < float(steps[:-1])
        return count < int(steps)

    while goes_on():
        exerciser.step()
        count += 1
    exerciser.finish()
    print(count)


if __name__ == "__main__":
    main()

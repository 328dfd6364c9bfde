"""Reading what is and what is not in memory, by one and by many, and how far ahead."""

from __future__ import annotations

import mmap
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.live import make_dirs
from support.mounting import mounted
from support.page_cache import forget, plant_large
from support.processes import wait_until

pytestmark = pytest.mark.usefixtures("data_way")

MIB = 1 << 20
SIZE = 8 * MIB + 1234


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with a file of which a part is a hole."""
    (source,) = make_dirs(tmp_path, "source")
    plant_large(source / "data", SIZE)
    return source


@pytest.fixture
def top(source: Path, tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path, f"{source}::/") as target:
        yield target


@pytest.mark.parametrize("direct", [0, os.O_DIRECT])
def test_many_readers_of_what_is_not_in_memory(top: Path, source: Path, direct: int) -> None:
    content = (source / "data").read_bytes()
    forget(source / "data")
    forget(top / "data")
    fd = os.open(top / "data", os.O_RDONLY | direct)

    def read(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            size = chance.choice((4096, 65536, MIB))
            offset = chance.randrange(SIZE // 4096) * 4096
            with mmap.mmap(-1, size) as aligned:  # past the daemon O_DIRECT wants it so
                count = os.preadv(fd, [aligned], offset)
                assert aligned[:count] == content[offset : offset + size]

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(8)))
    os.close(fd)


def test_the_end_of_a_file_and_beyond(top: Path, source: Path) -> None:
    content = (source / "data").read_bytes()
    for drop in (True, False):
        if drop:
            forget(source / "data")
        with (top / "data").open("rb", buffering=0) as file:
            for offset in (SIZE - 1, SIZE - 4096, SIZE - 70_000, 3 * MIB - 5):
                assert os.pread(file.fileno(), 200_000, offset) == content[offset:][:200_000]
            for offset in (SIZE, SIZE + 1, SIZE + 5 * MIB, 1 << 40):
                assert os.pread(file.fileno(), 4096, offset) == b""
    with (source / "data").open("ab") as host:
        host.write(b"more")
    assert wait_until(lambda: (top / "data").stat().st_size == SIZE + 4)
    assert (top / "data").read_bytes()[-10:] == content[-6:] + b"more"


def test_the_kernel_reads_far_ahead(source: Path, tmp_path: Path) -> None:
    """In a privileged daemon's mount, that is, and no longer than it lives."""
    with mounted(tmp_path, f"{source}::/") as top:
        device = os.stat(top).st_dev
        place = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}")
        assert os.access(place / "read_ahead_kb", os.W_OK), "this needs root and a writable /sys"
        assert int((place / "read_ahead_kb").read_text()) >= 512
    assert wait_until(lambda: not place.exists())


def test_the_end_of_a_large_piece(top: Path, source: Path) -> None:
    """Where the last page of a file is not full, however much of it is asked for at once."""
    for size in (40_000, 65_536, 65_537, 131_071, 600_001, MIB, MIB + 1):
        content = random.Random(size).randbytes(size)
        (source / f"f{size}").write_bytes(content)
        for cached in (True, False):
            if not cached:
                forget(source / f"f{size}")
            assert (top / f"f{size}").read_bytes() == content
            forget(top / f"f{size}")
            fd = os.open(top / f"f{size}", os.O_RDONLY)
            assert os.pread(fd, 2 * MIB, 100) == content[100:]
            os.close(fd)

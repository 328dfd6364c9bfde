"""Few descriptors and a large tree; nothing that grows with what was done."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.counting import CountedMount
from support.live import make_target
from support.mounting import unmount
from support.planting import plant
from support.processes import in_child, wait_until
from support.tree_load import DIRECTORIES, Worker

pytestmark = pytest.mark.usefixtures("data_way")

DESCRIPTORS = 256
SIDE = 142
"""Directories, and files in each: 20,000 files."""
HELD = 220
"""More than are left when the cache of directories is full."""


@contextmanager
def counted(
    place: Path, source: Path, limit: int | None = None, nodes: int = 0
) -> Iterator[tuple[Path, CountedMount]]:
    target = make_target(place)
    mount = CountedMount(target, place / "answer", ["--dir", f"{source}::/"], limit, nodes)
    try:
        yield target, mount
    finally:
        assert unmount(target) == []


def make_tree(top: Path, side: int = SIDE) -> None:
    for number in range(side):
        directory = top / f"d{number}"
        directory.mkdir()
        for file in range(side):
            os.close(os.open(directory / f"f{file}", os.O_CREAT | os.O_WRONLY))


def walk(top: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(top))


def open_many(top: Path) -> int:
    """As many at a time as leave the daemon a few descriptors for the directories."""
    paths = [top / f"d{number % SIDE}/f{number % SIDE}" for number in range(HELD)]
    held = [os.open(path, os.O_RDWR) for path in paths]
    return sum(os.pwrite(fd, b"x", 0) for fd in held)


def remove_all(top: Path) -> None:
    for name in os.listdir(top):
        shutil.rmtree(top / name)


def test_256_descriptors_for_20_000_files(tmp_path: Path) -> None:
    source = plant(tmp_path / "source")
    make_tree(source)
    with counted(tmp_path, source, DESCRIPTORS) as (top, mount):
        fresh = mount.vitals()
        assert in_child(walk, top, seconds=60) == SIDE * SIDE
        assert mount.vitals().descriptors < DESCRIPTORS / 2, "a cache of every directory"
        assert in_child(open_many, top, seconds=60) == HELD
        walked = mount.vitals()
        assert walked.descriptors < DESCRIPTORS
        assert walked.nodes > SIDE * SIDE
        in_child(remove_all, top, seconds=60)
        assert os.listdir(source) == []
        assert wait_until(lambda: mount.vitals().nodes <= fresh.nodes + 2)
        after = mount.vitals()
    assert after.handles == fresh.handles
    assert after.tasks <= fresh.tasks + SPARE_TASKS, (fresh, after)
    assert after.blocks - fresh.blocks < (walked.blocks - fresh.blocks) / 20, (fresh, after)


SPARE_TASKS = 8
"""Requests that come at once make tasks, which stay for a while in case more do."""


def mixed_load(top: Path, seed: int, steps: int) -> None:
    worker = Worker(seed, [top])
    for _ in range(steps):
        worker.step()
    for number in range(DIRECTORIES):
        shutil.rmtree(top / f"d{number}")
        os.mkdir(top / f"d{number}")


def test_nothing_grows(tmp_path: Path) -> None:
    source = plant(tmp_path / "source", *(f"d{number}/" for number in range(DIRECTORIES)))
    with counted(tmp_path, source) as (top, mount):
        in_child(mixed_load, top, 0, 1500, seconds=60)
        first = mount.vitals()
        for seed in (1, 2, 3):
            in_child(mixed_load, top, seed, 1500, seconds=60)
        assert wait_until(lambda: mount.vitals().nodes <= first.nodes + 2)
        last = mount.vitals()
    assert last.handles == first.handles == 0
    assert last.tasks <= first.tasks + SPARE_TASKS, (first, last)
    assert last.threads <= first.threads + 2, (first, last)
    assert last.descriptors <= first.descriptors + 4, (first, last)
    # One object for every third of what was done would be more.
    assert last.blocks < first.blocks + 1500, (first, last)
    assert last.c_bytes < first.c_bytes + 200_000, (first, last)


def test_the_kernel_is_told_to_forget(tmp_path: Path) -> None:
    """What somebody uses stays, and what was forgotten is found again."""
    most, side = 500, 70
    source = plant(tmp_path / "source", "sub/kept=kept", "sub/cwd/x=x")
    make_tree(source, side)
    with counted(tmp_path, source, nodes=most) as (top, mount):
        with open(top / "sub/kept", "r+b", buffering=0) as file:
            path = os.open(top / "sub/cwd/x", os.O_PATH)
            seen = os.stat(top / "d0/f0").st_ino
            assert in_child(walk, top, seconds=60) == side * side + 2
            assert wait_until(lambda: mount.vitals().nodes <= most), mount.vitals()
            assert file.write(b"KEPT") == 4
            assert os.stat(path).st_size == 1
            os.close(path)
        assert (top / "sub/kept").read_bytes() == b"KEPT"
        assert os.stat(top / "d0/f0").st_ino == seen
        assert mount.vitals().handles == 0

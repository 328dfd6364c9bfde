"""The numbers that files are registered by: one for each open inode, and none left over."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from passthrough.mounts import LARGE, WAYS, all_closed, going, passing, status, told
from support.live import daemon_of
from support.loop_disk import ext4
from support.planting import plant
from support.processes import outcome, wait_until

SOME = 20
"""Descriptors of directories, which the daemon keeps for a while."""


def descriptors(top: Path) -> int:
    return len(os.listdir(f"/proc/{daemon_of(top)}/fd"))


def test_one_for_each_inode_while_it_is_open(tmp_path: Path) -> None:
    source = plant(tmp_path / "source", "a=" + "a" * LARGE, "b=" + "b" * LARGE)
    os.link(source / "a", source / "also a")
    with passing(tmp_path, f"{source}::/") as top:
        with ExitStack() as files:
            for name, mode in (("a", "rb"), ("a", "r+b"), ("also a", "ab"), ("b", "rb")):
                files.enter_context((top / name).open(mode))
            assert (told(top)["files"], told(top)["opened"]) == (2, 4)
            assert status(top)["handles"] == 4
            (top / "new").write_text("new")
            assert told(top)["opened"] == 5
        assert all_closed(top)


@pytest.fixture
def room() -> Iterator[None]:
    """For more descriptors in this process than some machines give it at first."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("way", WAYS)
def test_a_thousand_files_at_once(tmp_path: Path, room: None, way: str) -> None:
    source = plant(tmp_path / "source", *(f"dir/{number}={number}" for number in range(1000)))
    with going(way, tmp_path, f"{source}::/") as top:
        before = descriptors(top)
        files = [os.open(top / f"dir/{number}", os.O_RDWR) for number in range(1000)]
        assert told(top)["files"] == (1000 if way == "require" else 0)
        for number, file in enumerate(files):
            assert os.pread(file, 10, 0) == str(number).encode()
            assert os.pwrite(file, b"x", 0) == 1
        for file in files:
            os.close(file)
        assert all_closed(top)
        assert wait_until(lambda: descriptors(top) <= before + SOME, seconds=5)
    assert (source / "dir/999").read_text() == "x99"


TIMES = 100_000
GUESTS = 4
MOST_KIB = 1024
"""One object for each open, however small, would take more."""

OPENER = """
import os, sys
top, own, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
shared, kept = os.path.join(top, "shared"), os.path.join(top, own)
for number in range(times):
    fd = os.open(shared if number % 4 == 0 else kept, os.O_RDWR if number % 2 else os.O_RDONLY)
    if number % 100 == 0:
        assert os.pread(fd, 1, 0) == b"x"
    os.close(fd)
"""


def open_and_close(top: Path, times: int) -> None:
    """Altogether so many TIMES, by several guests at once."""
    code = [sys.executable, "-ISc", OPENER, str(top)]
    words = [[*code, f"own{number}", str(times // GUESTS)] for number in range(GUESTS)]
    guests = [subprocess.Popen(each) for each in words]
    assert [guest.wait(120) for guest in guests] == [0] * GUESTS


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:")))


@pytest.mark.parametrize("way", WAYS)
def test_a_hundred_thousand_times(tmp_path: Path, way: str) -> None:
    """On a file system of its own, which tells whether anybody still holds what was removed."""
    names = ["shared", *(f"own{number}" for number in range(GUESTS))]
    with ext4(tmp_path, mib=16) as disk:
        empty = os.statvfs(disk).f_bfree
        plant(disk, *(f"{name}={'x' * LARGE}" for name in names))
        with going(way, tmp_path, f"{disk}::/") as top:
            open_and_close(top, TIMES // 20)  # until everything is there that stays
            assert all_closed(top)
            before, pid = descriptors(top), daemon_of(top)
            memory, opened = resident_kib(pid), told(top)["opened"]
            open_and_close(top, TIMES)
            assert all_closed(top)
            assert told(top)["opened"] - opened == (TIMES if way == "require" else 0)
            assert wait_until(lambda: descriptors(top) <= before + SOME, seconds=5)
            assert resident_kib(pid) - memory < MOST_KIB
            for name in names:
                (top / name).unlink()
            assert wait_until(lambda: os.statvfs(disk).f_bfree == empty)


def test_opened_and_closed_by_several_at_once(tmp_path: Path) -> None:
    source = plant(tmp_path / "source", *(f"{n}=" + "x" * LARGE for n in range(4)))
    with passing(tmp_path, f"{source}::/") as top:
        before = descriptors(top)

        def use(numbers: Sequence[int]) -> None:
            for number in numbers:
                fd = os.open(top / str(number % 4), os.O_RDWR if number % 3 else os.O_RDONLY)
                assert os.pread(fd, 1, 0) == b"x"
                os.close(fd)

        users = [threading.Thread(target=use, args=[range(n, n + 500)]) for n in range(4)]
        for user in users:
            user.start()
        for user in users:
            user.join()
        assert all_closed(top)
        assert told(top)["opened"] == 2000
        assert descriptors(top) <= before + SOME


def test_an_open_that_fails_leaves_none(tmp_path: Path) -> None:
    source = plant(tmp_path / "source", "file=x")
    with passing(tmp_path, f"{source}::/::ro") as top:
        for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDONLY | os.O_TRUNC):
            try:
                os.close(os.open(top / "file", flags))
            except OSError:
                continue
            raise AssertionError("it was opened")
        assert told(top)["files"] == 0


def test_what_was_created_runs_once_nobody_writes_to_it(tmp_path: Path) -> None:
    """Registering a file does not keep it open for writing on the host."""
    source = plant(tmp_path / "source")
    with passing(tmp_path, f"{source}::/") as top:
        with (top / "program").open("wb") as writer:
            writer.write(Path("/bin/true").read_bytes())
            writer.flush()
            reader = (top / "program").open("rb")
        with reader:
            (top / "program").chmod(0o755)
            assert wait_until(lambda: outcome(subprocess.run, [source / "program"]) == "ok")
            assert told(top)["files"] == 1

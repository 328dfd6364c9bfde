"""A guest that does its worst to a real mount; what it may not have, and that the rest goes on."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.dents import listing, read_all, read_some
from support.isolation import runtime_directory
from support.live import foreground
from support.mounting import mounted
from support.planting import plant

pytestmark = pytest.mark.usefixtures("data_way")

__all__ = ["runtime_directory"]

LEVELS = 2_000


@contextmanager
def fails(number: int) -> Iterator[None]:
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno == number


def in_guest(code: str, *arguments: str, seconds: float = 60) -> str:
    """Run CODE in a process of its own, which may change its directory; what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


DIG = """
import os, sys
os.chdir(sys.argv[1])
for level in range(int(sys.argv[2])):
    os.mkdir(sys.argv[3])
    os.chdir(sys.argv[3])
open("bottom", "w").write("here")
assert open("bottom").read() == "here"
os.unlink("bottom")
"""
FILL = """
import os, sys
os.chdir(sys.argv[1])
for level in range(int(sys.argv[2])):
    os.chdir(sys.argv[3])
for level in range(int(sys.argv[2])):
    os.chdir("..")
    os.rmdir(sys.argv[3])
"""


def test_directories_nest_beyond_any_path(tmp_path: Path) -> None:
    """Beside a read-only preopen of the same file system, by which every change is judged."""
    top, name = plant(tmp_path / "top"), "d"
    shown = plant(tmp_path / "shown", "file=shown")
    with mounted(tmp_path, f"{top}::/", f"{shown}::/shown::ro") as target:
        try:
            in_guest(DIG, str(target), str(LEVELS), name)
            assert (target / name).joinpath(*[name] * 100).is_dir()
        finally:
            in_guest(FILL, str(top), str(LEVELS), name)
        assert sorted(os.listdir(target)) == ["shown"]


@pytest.mark.parametrize("levels", [200, 1_000])
def test_a_guest_path_may_be_deep(tmp_path: Path, levels: int) -> None:
    host = plant(tmp_path / "host", "file=deep")
    with mounted(tmp_path, f"{host}::" + "/d" * levels) as target:
        assert target.joinpath(*["d"] * levels, "file").read_text() == "deep"
        assert [d.name for d in listing(target) if d.name not in (b".", b"..")] == [b"d"]


def test_ten_thousand_preopens(tmp_path: Path) -> None:
    host = plant(tmp_path / "host", *(f"h{i}/" for i in range(100)))
    config = tmp_path / "many.toml"
    config.write_text(
        "".join(
            f'[[dir]]\nhost = "host/h{i % 100}"\nguest = "/n{i}"\nro = {str(i % 2 > 0).lower()}\n'
            for i in range(10_000)
        )
    )
    begin = time.monotonic()
    with mounted(tmp_path, options=["--config", str(config)]) as target:
        print(f"live after {time.monotonic() - begin:.1f} s")
        assert {d.name for d in listing(target)} == {b".", b".."} | {
            b"n%d" % i for i in range(10_000)
        }
        (host / "h7" / "file").write_text("seven")
        assert (target / "n9907" / "file").read_text() == "seven"
        with fails(errno.EROFS):
            (target / "n9907" / "new").touch()


def test_links_in_circles_and_long_chains(tmp_path: Path) -> None:
    top = plant(tmp_path / "top", "file=f", "loop->loop", "a->b", "b->a", "d/up->../d/up/x")
    for i in range(41):
        (top / f"l{i}").symlink_to(f"l{i + 1}" if i < 40 else "file")
    with mounted(tmp_path, f"{top}::/") as target:
        for name in ("loop", "a", "d/up", "l0"):
            with fails(errno.ELOOP):
                os.stat(target / name)
            os.readlink(target / name)
        assert (target / "l1").read_text() == "f"  # forty links


def test_many_open_files(tmp_path: Path) -> None:
    top = plant(tmp_path / "top", *(f"f{i}={i}" for i in range(1000)))
    with mounted(tmp_path, f"{top}::/") as target:
        with ExitStack() as stack:
            opened = [stack.enter_context(open(target / f"f{i}")) for i in range(900)]
            assert [file.read() for file in opened] == [str(i) for i in range(900)]
        assert (target / "f999").read_text() == "999"


@pytest.mark.parametrize("style", ["text", "json"])
def test_names_do_not_forge_log_lines(tmp_path: Path, style: str) -> None:
    shown = plant(tmp_path / "shown")
    name = b"x\n2026-01-01 ERROR forged\r\x1b[2J\xff\xe2\x80\xa8"
    (shown / os.fsdecode(name)).write_text("x")
    target = tmp_path / "target"
    target.mkdir()
    with foreground(target, f"{shown}::/::ro", options=["--log-format", style]) as daemon:
        with fails(errno.EROFS):
            os.chmod(os.fsencode(target) + b"/" + name, 0o600)
        daemon.terminate()
        _, said = daemon.communicate(timeout=10)
    lines = said.split("\n")[:-1]
    denied = [line for line in lines if "denied" in line]
    assert len(denied) == 1, said
    assert denied[0].isprintable()
    assert not any(line.startswith("2026-01-01") for line in lines)
    if style == "json":
        records = [json.loads(line) for line in lines]
        assert any("forged" in json.dumps(record) for record in records)


def test_huge_attributes(tmp_path: Path) -> None:
    top = plant(tmp_path / "top", "file=f")
    with mounted(tmp_path, f"{top}::/") as target:
        for name, size, number in (
            ("user." + "n" * 251, 10, errno.ERANGE),
            ("user.big", 65537, errno.E2BIG),
            ("user.", 1, errno.EINVAL),
        ):
            with fails(number):
                os.setxattr(target / "file", name, b"v" * size)
        assert os.listxattr(target / "file") == os.listxattr(top / "file")


def test_any_place_in_a_listing(tmp_path: Path) -> None:
    top = plant(tmp_path / "top", *(f"f{i}=" for i in range(50)))
    with mounted(tmp_path, f"{top}::/") as target:
        fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            known = {entry.name for entry in listing(top)}
            for place in (3, 52, 53, 1000, 2**31, 2**62, 2**63 - 1, 7, 1, 0):
                os.lseek(fd, place, os.SEEK_SET)
                found = [entry.name for entry in read_some(fd)]
                assert known.issuperset(found)
                assert len(found) == len(set(found))
            os.lseek(fd, 0, os.SEEK_SET)
            assert {entry.name for entry in read_all(fd)} == known
            with fails(errno.EINVAL):
                os.lseek(fd, -1, os.SEEK_SET)
        finally:
            os.close(fd)


def test_a_directory_is_not_moved_into_itself(tmp_path: Path) -> None:
    top = plant(tmp_path / "top", "d/e/f/file=f")
    with mounted(tmp_path, f"{top}::/") as target:
        for _ in range(100):
            for below in ("d/x", "d/e/x", "d/e/f/x"):
                with fails(errno.EINVAL):
                    os.rename(target / "d", target / below)
        exchange = ctypes.CDLL(None, use_errno=True).renameat2
        at = -100
        words = os.fsencode(target / "d"), os.fsencode(target / "d/e")
        assert exchange(at, words[0], at, words[1], 2) == -1
        assert ctypes.get_errno() == errno.EINVAL
        assert (target / "d/e/f/file").read_text() == "f"


def test_deleted_files_by_their_descriptors(tmp_path: Path) -> None:
    top = plant(tmp_path / "top", "file=gone", "d/")
    shown = plant(tmp_path / "shown", "file=shown")
    with mounted(tmp_path, f"{top}::/", f"{shown}::/shown::ro") as target:
        with open(target / "file") as file, open(target / "shown/file") as kept:
            (target / "file").unlink()
            again = os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDWR)
            assert os.read(again, 10) == b"gone"
            os.close(again)
            (shown / "file").unlink()
            with fails(errno.EROFS):
                os.open(f"/proc/self/fd/{kept.fileno()}", os.O_RDWR)
            with pytest.raises(OSError):
                os.link(f"/proc/self/fd/{kept.fileno()}", target / "back", follow_symlinks=True)
        assert sorted(os.listdir(target)) == ["d", "shown"]

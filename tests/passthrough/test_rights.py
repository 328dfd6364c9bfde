"""Who writes: what the kernel does by itself is done with the rights of whoever opened the file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from passthrough.mounts import WAYS, asked, going, passing, told
from support.loop_disk import ext4
from support.planting import plant
from support.processes import NOBODY, User, in_child, outcome

ROOT = User(0, 0)
SET_ID = 0o6777
"""Anybody may write to it, and it runs as its owner and group."""


def write_to(path: Path) -> None:
    with path.open("r+b", 0) as file:
        file.write(b"x")


def mode_after(path: Path, user: User) -> int:
    path.write_bytes(b"content")
    path.chmod(SET_ID)
    in_child(write_to, path, user=user)
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("user", [ROOT, NOBODY])
def test_writing_clears_set_id_bits_as_on_the_host(open_path: Path, user: User) -> None:
    source = plant(open_path / "source")
    source.chmod(0o777)
    expected = mode_after(source / "host", user)
    assert expected == (SET_ID if user == ROOT else 0o777)
    with passing(open_path, f"{source}::/", options=["--allow-other"]) as top:
        assert mode_after(top / "guest", user) == expected
        assert stat.S_IMODE((source / "guest").stat().st_mode) == expected
        assert asked(top, "write") == 1  # through the daemon, to which the kernel says who writes


def test_one_that_comes_after_somebody_else_writes_with_its_own_rights(open_path: Path) -> None:
    """The kernel would write with the rights of the first: then through the daemon."""
    source = plant(open_path / "source", "file=content")
    (source / "file").chmod(0o666)
    options = ["--allow-other"]
    with passing(open_path, f"{source}::/", options=options) as top:
        with (top / "file").open("r+b", 0) as ours:
            (top / "file").chmod(SET_ID)
            in_child(write_to, top / "file", user=NOBODY)
            assert stat.S_IMODE((top / "file").stat().st_mode) == 0o777
            assert asked(top, "write") == 1
            assert os.pread(ours.fileno(), 7, 0) == b"xontent"
            assert in_child((top / "file").read_bytes, user=NOBODY) == b"xontent"
            assert (asked(top, "read"), told(top)["files"]) == (0, 1)
        assert (source / "file").read_bytes() == b"xontent"


def test_nobody_reads_or_writes_what_it_may_not(open_path: Path) -> None:
    source = plant(open_path / "source", "file=content")
    (source / "file").chmod(0o600)
    mount = passing(open_path, f"{source}::/", options=["--allow-other"])
    with mount as top, (top / "file").open("r+b"):  # it passes by already
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            found = in_child(outcome, os.open, top / "file", flags, user=NOBODY)
            assert found == "EACCES"


def fill(path: Path) -> int:
    """How many bytes go into the new file PATH."""
    piece, written = b"x" * (256 << 10), 0
    with path.open("wb", 0) as file:
        while outcome(file.write, piece) == "ok":
            written += len(piece)
    path.unlink()
    return written


@pytest.mark.parametrize("way", WAYS)
def test_the_reserve_of_a_disk_is_not_for_guests(open_path: Path, way: str) -> None:
    with ext4(open_path, mib=16, reserved=25) as disk:
        (disk / "open").mkdir()
        (disk / "open").chmod(0o777)
        host = in_child(fill, disk / "open/file", user=NOBODY)
        assert host < fill(disk / "open/file") - (2 << 20)
        with going(way, open_path, f"{disk}::/", options=["--allow-other"]) as top:
            assert in_child(fill, top / "open/file", user=NOBODY) <= host + (256 << 10)
            assert (asked(top, "write") == 0) is (way == "require")

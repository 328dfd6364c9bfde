"""setattr in every combination, extended attributes, access and statfs, with and without handle."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest

from overlayd.core.types import Changes
from overlayd.host.credentials import Caller
from support.core_guest import ROOT, Guest, fails
from support.planting import plant

ATIME, MTIME = 1_500_000_000_123_456_789, 1_600_000_000_987_654_321
NOBODY = Caller(65534, 65534, 0)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    plant(tmp_path, "a/f=0123456789", "a/d/", "a/l->f")
    os.chmod(tmp_path / "a/f", 0o644)
    return Guest(f"{tmp_path}/a::/")


@contextmanager
def handle_on(guest: Guest, path: str, kind: str) -> Iterator[int | None]:
    """No handle, one to read, or one to write."""
    flags = {"reading": os.O_RDONLY, "writing": os.O_RDWR}
    handle = guest.open(path, flags[kind]) if kind in flags else None
    yield handle
    if handle is not None:
        guest.data.release(handle)


ALTERNATIVES = product(
    (None, 0o600), (None, 12), (None, 34), (None, 4), (None, ATIME), (None, MTIME)
)
COMBINATIONS = [Changes(*fields) for fields in ALTERNATIVES]


@pytest.mark.parametrize("kind", ["none", "reading", "writing"])
def test_every_combination(guest: Guest, tmp_path: Path, kind: str) -> None:
    for changes in COMBINATIONS:
        (tmp_path / "a/f").write_text("0123456789")
        os.chown(tmp_path / "a/f", 1, 1)
        os.chmod(tmp_path / "a/f", 0o644)
        before = guest.stat("/f").stat
        with handle_on(guest, "/f", kind) as handle:
            answer = guest.change("/f", changes, handle)
        now = answer.stat
        assert stat.S_IMODE(now.mode) == (0o644 if changes.mode is None else changes.mode)
        assert now.uid == (1 if changes.uid is None else changes.uid)
        assert now.gid == (1 if changes.gid is None else changes.gid)
        assert answer.size == (10 if changes.size is None else changes.size)
        if changes.atime_ns is not None:
            assert now.atime_ns == changes.atime_ns
        if changes.mtime_ns is not None:
            assert now.mtime_ns == changes.mtime_ns
        elif changes.size is None:
            assert now.mtime_ns == before.mtime_ns
        assert guest.stat("/f").stat == now


def test_a_directory(guest: Guest) -> None:
    now = guest.change("/d", Changes(0o700, 12, 34, None, ATIME, MTIME)).stat
    assert (stat.S_IMODE(now.mode), now.uid, now.gid) == (0o700, 12, 34)
    assert (now.atime_ns, now.mtime_ns) == (ATIME, MTIME)
    with pytest.raises(OSError):
        guest.change("/d", Changes(size=0))


def test_a_symbolic_link_and_not_what_it_points_to(guest: Guest) -> None:
    before = guest.stat("/f").stat
    now = guest.change("/l", Changes(None, 12, 34, None, ATIME, MTIME)).stat
    assert (now.uid, now.gid, now.atime_ns, now.mtime_ns) == (12, 34, ATIME, MTIME)
    with fails(errno.EOPNOTSUPP):
        guest.change("/l", Changes(mode=0o600))
    assert guest.stat("/f").stat == before


def test_growing_a_file(guest: Guest) -> None:
    assert guest.change("/f", Changes(size=1 << 40)).size == 1 << 40
    assert guest.change("/f", Changes(size=12)).size == 12
    assert guest.read("/f") == "0123456789\0\0"


def test_times_before_1970(guest: Guest) -> None:
    now = guest.change("/f", Changes(atime_ns=-1, mtime_ns=-1_500_000_000)).stat
    assert (now.atime_ns, now.mtime_ns) == (-1, -1_500_000_000)


def test_an_unknown_handle(guest: Guest) -> None:
    with fails(errno.EBADF):
        guest.change("/f", Changes(size=0), 4711)


# -- as the host's own user -----------------------------------------------------------------------


@pytest.fixture
def nobody(tmp_path: Path) -> Guest:
    """A guest of another user, in a directory that user may enter."""
    plant(tmp_path, "a/mine=mine", "a/theirs=theirs", "a/open=open")
    os.chown(tmp_path / "a/mine", NOBODY.uid, NOBODY.gid)
    os.chmod(tmp_path / "a/open", 0o666)
    return Guest(f"{tmp_path}/a::/", caller=NOBODY)


def test_who_owns_a_file_may_change_it(nobody: Guest) -> None:
    nobody.change("/mine", Changes(mode=0o600, size=0, atime_ns=ATIME, mtime_ns=MTIME))
    assert stat.S_IMODE(nobody.stat("/mine").stat.mode) == 0o600


@pytest.mark.parametrize(
    "changes",
    [Changes(mode=0o777), Changes(uid=NOBODY.uid), Changes(mtime_ns=MTIME, atime_ns=ATIME)],
)
def test_others_may_not(nobody: Guest, changes: Changes) -> None:
    for path in ("/theirs", "/open"):
        with fails(errno.EPERM):
            nobody.change(path, changes)


def test_truncating_needs_the_right_to_write(nobody: Guest) -> None:
    with fails(errno.EACCES):
        nobody.change("/theirs", Changes(size=0))
    assert nobody.change("/open", Changes(size=0)).size == 0


def test_truncating_through_a_handle_needs_no_more_rights(nobody: Guest, tmp_path: Path) -> None:
    handle = nobody.open("/open", os.O_WRONLY)
    os.chmod(tmp_path / "a/open", 0o600)
    assert nobody.change("/open", Changes(size=1), handle).size == 1


def test_who_may_write_may_set_the_times_to_now(nobody: Guest, tmp_path: Path) -> None:
    """touch(1) on a file of somebody else; any other time is for its owner."""
    os.utime(tmp_path / "a/open", ns=(0, 0))
    now = time.time_ns()
    changed = nobody.change("/open", Changes(atime_ns=now, mtime_ns=now)).stat
    assert changed.mtime_ns >= now - 1_000_000_000
    with fails(errno.EACCES):
        nobody.change("/theirs", Changes(atime_ns=now, mtime_ns=now))


def test_a_file_cannot_be_given_away(nobody: Guest) -> None:
    with fails(errno.EPERM):
        nobody.change("/mine", Changes(uid=1))
    with fails(errno.EPERM):
        nobody.change("/mine", Changes(gid=1))


# -- extended attributes --------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/f", "/d"])
def test_extended_attributes(guest: Guest, tmp_path: Path, path: str) -> None:
    number, on = guest.number(path), guest.attributes
    on.setxattr(number, b"user.one", b"\0\xff", ROOT)
    on.setxattr(number, b"user.empty", b"", ROOT)
    on.setxattr(number, b"user.one", b"again", ROOT)
    assert os.getxattr(tmp_path / f"a{path}", "user.one") == b"again"
    assert on.getxattr(number, b"user.empty", ROOT) == b""
    assert {b"user.one", b"user.empty"} <= set(on.listxattr(number, ROOT))
    on.removexattr(number, b"user.one", ROOT)
    for absent in (
        lambda: on.getxattr(number, b"user.one", ROOT),
        lambda: on.removexattr(number, b"user.one", ROOT),
    ):
        with fails(errno.ENODATA):
            absent()


def test_extended_attributes_of_a_link_are_its_own(guest: Guest) -> None:
    guest.attributes.setxattr(guest.number("/f"), b"user.x", b"1", ROOT)
    link = guest.number("/l")
    with fails(errno.EPERM):  # as on the host: links have no user attributes
        guest.attributes.setxattr(link, b"user.x", b"1", ROOT)
    guest.attributes.setxattr(link, b"trusted.x", b"2", ROOT)
    assert guest.attributes.getxattr(link, b"trusted.x", ROOT) == b"2"
    assert b"trusted.x" not in guest.attributes.listxattr(guest.number("/f"), ROOT)


def test_trusted_attributes_are_listed_to_root_alone(guest: Guest) -> None:
    """As the host's file systems do. (Reading and setting them the kernel refuses by itself.)"""
    number = guest.number("/f")
    for name in (b"trusted.x", b"user.y"):
        guest.attributes.setxattr(number, name, b"1", ROOT)
    assert guest.attributes.listxattr(number, NOBODY) == [b"user.y"]
    assert set(guest.attributes.listxattr(number, ROOT)) == {b"trusted.x", b"user.y"}


def test_a_synthetic_directory_has_none(tmp_path: Path) -> None:
    plant(tmp_path, "a/")
    guest = Guest(f"{tmp_path}/a::/s/t")
    number = guest.number("/s")
    assert guest.attributes.listxattr(number, ROOT) == []
    with fails(errno.ENODATA):
        guest.attributes.getxattr(number, b"user.x", ROOT)


def test_an_access_list_made_on_the_host_is_seen(guest: Guest, tmp_path: Path) -> None:
    subprocess.run(["setfacl", "-m", "u:12:r", str(tmp_path / "a/f")], check=True)
    assert b"system.posix_acl_access" in guest.attributes.listxattr(guest.number("/f"), ROOT)


# -- access and statfs ----------------------------------------------------------------------------


def test_access_asks_the_host_for_the_caller(guest: Guest, tmp_path: Path) -> None:
    os.chmod(tmp_path / "a/f", 0o640)
    number = guest.number("/f")
    guest.attributes.access(number, os.R_OK | os.W_OK, ROOT)
    for mode in (os.R_OK, os.W_OK, os.X_OK):
        with fails(errno.EACCES):
            guest.attributes.access(number, mode, NOBODY)
    with fails(errno.EACCES):
        guest.attributes.access(number, os.X_OK, ROOT)
    guest.attributes.access(number, os.F_OK, NOBODY)


def test_access_to_a_synthetic_directory(tmp_path: Path) -> None:
    plant(tmp_path, "a/")
    guest = Guest(f"{tmp_path}/a::/s/t")
    guest.attributes.access(guest.number("/s"), os.R_OK | os.X_OK, NOBODY)
    with fails(errno.EROFS):
        guest.attributes.access(guest.number("/s"), os.W_OK, ROOT)


def test_statfs_is_the_root_sources(tmp_path: Path) -> None:
    plant(tmp_path, "a/", "b/")
    for flags in ([f"{tmp_path}/a::/"], [f"{tmp_path}/b::/m"]):
        answer = Guest(*flags).attributes.statfs()
        assert answer.f_blocks == os.statvfs(tmp_path).f_blocks

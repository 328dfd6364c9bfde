"""What a caller makes belongs to it, as on the host (SPEC.md section 3, rule 9)."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overlayd.core.types import Changes
from overlayd.host import _calls, credentials
from overlayd.host.credentials import Caller, Credentials
from support.core_guest import Guest, each_fails, fails
from support.planting import plant

UID, GID, EXTRA, OTHER = 40001, 40002, 40003, 40004
NO_ID = 2**32 - 1


@pytest.fixture
def caller() -> Iterator[Caller]:
    """A real process with ids of its own: its supplementary groups are read from it."""
    child = subprocess.Popen(["sleep", "60"], user=UID, group=GID, extra_groups=[EXTRA])
    yield Caller(UID, GID, child.pid)
    child.kill()
    child.wait()


@pytest.fixture(params=[_calls.take_on, credentials._take_on_by_ctypes])
def guest(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caller: Caller,
) -> Guest:
    monkeypatch.setattr(credentials, "_take_on", request.param)
    plant(tmp_path, "a/open/f=F", "a/shared/", "a/closed/f=F", "a/sticky/theirs=T")
    os.chmod(tmp_path / "a/open", 0o777)
    os.chown(tmp_path / "a/shared", 0, EXTRA)
    os.chmod(tmp_path / "a/shared", 0o2775)
    os.chmod(tmp_path / "a/closed", 0o755)
    os.chmod(tmp_path / "a/sticky", 0o1777)
    return Guest(f"{tmp_path}/a::/", caller=caller)


def owner(guest: Guest, path: str) -> tuple[int, int]:
    status = guest.stat(path).stat
    return status.uid, status.gid


MAKERS: dict[str, Callable[[Guest, str], object]] = {
    "create": lambda g, path: g.make(path),
    "mkdir": lambda g, path: g.mkdir(path),
    "mknod": lambda g, path: g.mknod(path, stat.S_IFIFO | 0o600),
    "symlink": lambda g, path: g.symlink("x", path),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_it_belongs_to_the_caller(guest: Guest, make: Callable[[Guest, str], object]) -> None:
    make(guest, "/open/new")
    assert owner(guest, "/open/new") == (UID, GID)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_host_says_who_may(guest: Guest, make: Callable[[Guest, str], object]) -> None:
    with fails(errno.EACCES):
        make(guest, "/closed/new")
    each_fails(
        errno.EACCES,
        lambda: guest.unlink("/closed/f"),
        lambda: guest.rename("/closed/f", "/closed/g"),
        lambda: guest.open("/closed/f", os.O_WRONLY),
        lambda: guest.rmdir("/closed"),
    )
    assert guest.read("/closed/f") == "F"


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_supplementary_groups_count(guest: Guest, make: Callable[[Guest, str], object]) -> None:
    """/shared is writable for one of the caller's further groups only."""
    make(guest, "/shared/new")
    assert owner(guest, "/shared/new") == (UID, EXTRA), "a set-gid directory passes its group on"


def test_without_the_group_it_is_closed(guest: Guest) -> None:
    guest.caller = Caller(UID, GID, 0)  # a process that cannot be seen has no further groups
    with fails(errno.EACCES):
        guest.make("/shared/new")


def test_a_set_gid_directory_passes_the_bit_to_directories(guest: Guest) -> None:
    guest.mkdir("/shared/d", 0o755)
    status = guest.stat("/shared/d").stat
    assert stat.S_IMODE(status.mode) == 0o2755
    assert status.gid == EXTRA


def test_a_sticky_directory(guest: Guest) -> None:
    guest.make("/sticky/mine")
    each_fails(
        errno.EPERM,
        lambda: guest.unlink("/sticky/theirs"),
        lambda: guest.rename("/sticky/theirs", "/sticky/stolen"),
        lambda: guest.rename("/sticky/mine", "/sticky/theirs"),
    )
    guest.rename("/sticky/mine", "/sticky/renamed")
    guest.unlink("/sticky/renamed")


@pytest.mark.parametrize("mode", [0o644, 0o600, 0o777, 0o4755, 0o400])
def test_the_mode_is_what_the_kernel_gave(guest: Guest, mode: int) -> None:
    """The caller's umask is in it already; the daemon's own must not come on top."""
    handle = guest.create("/open/new", mode)
    guest.data.write(handle, 0, b"") if mode == 0o400 else None
    guest.data.release(handle)
    assert stat.S_IMODE(guest.stat("/open/new").stat.mode) == mode


def test_writing_clears_the_set_id_bits(guest: Guest) -> None:
    handle = guest.create("/open/new", 0o6755, os.O_WRONLY)
    guest.data.write(handle, 0, b"x")
    guest.data.release(handle)
    assert stat.S_IMODE(guest.stat("/open/new").stat.mode) == 0o755


def test_chgrp_to_one_of_the_callers_groups(guest: Guest) -> None:
    guest.make("/open/mine")
    guest.change("/open/mine", Changes(gid=EXTRA))
    assert owner(guest, "/open/mine") == (UID, EXTRA)
    with fails(errno.EPERM):
        guest.change("/open/mine", Changes(gid=OTHER))


def test_roots_files_are_roots(tmp_path: Path) -> None:
    plant(tmp_path, "a/")
    guest = Guest(f"{tmp_path}/a::/", caller=Caller(0, GID, 0))
    guest.make("/f")
    assert owner(guest, "/f") == (0, GID)


def thread_ids() -> dict[str, list[str]]:
    """Ids and groups of this thread: real, effective, saved and file system ones (proc(5))."""
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    return {
        line.split(":")[0]: line.split()[1:] for line in lines if line[:3] in ("Uid", "Gid")
    } | {"groups": [str(group) for group in sorted(os.getgroups())]}


def test_afterwards_the_daemon_is_itself_again(guest: Guest, tmp_path: Path) -> None:
    before = thread_ids()
    assert (before["Uid"], before["Gid"]) == (["0"] * 4, ["0"] * 4), "an earlier test left its ids"
    guest.make("/open/one")
    assert thread_ids() == before
    with fails(errno.EACCES):
        guest.make("/closed/one")
    assert thread_ids() == before
    assert (tmp_path / "a/open/one").stat().st_uid == UID


@pytest.mark.parametrize("ids", [(NO_ID, GID), (UID, NO_ID), (NO_ID, NO_ID)])
def test_ids_that_cannot_be_taken_on_stop_the_operation(
    guest: Guest, caller: Caller, ids: tuple[int, int]
) -> None:
    before = thread_ids()
    guest.caller = Caller(*ids, caller.pid)
    with fails(errno.EPERM):
        guest.make("/open/new")
    assert thread_ids() == before


def test_groups_that_cannot_be_taken_on_stop_the_operation(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = thread_ids()
    monkeypatch.setattr(credentials, "_groups_of", lambda _: (NO_ID,))
    with fails(errno.EINVAL):
        guest.make("/open/new")
    assert thread_ids() == before


def test_an_unprivileged_daemon_acts_as_itself(guest: Guest) -> None:
    guest.overlay.namespace.credentials.privileged = False
    guest.make("/open/new")
    assert owner(guest, "/open/new") == (0, 0)
    assert Credentials().privileged

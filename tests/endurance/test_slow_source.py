"""A source that answers after seconds, or never, or with errors; the others do not notice."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.dents import listing
from support.live import daemon_of
from support.moody_source import MoodySource, moody_source
from support.mounting import mounted
from support.planting import plant
from support.processes import has_ended, in_child, outcome
from support.side_by_side import see_off, start

pytestmark = pytest.mark.usefixtures("data_way")

STUCK = 3600.0
QUICK = 4.0
"""Seconds; each takes about a millisecond, and far less than anything here waits for."""

WAITERS = 20
"""More than there are threads for one file system."""


class Mount(NamedTuple):
    top: Path
    moody: MoodySource


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """A quick source at `/` and `/other`, and a moody one at `/slow`, which holds a `file`."""
    root = plant(tmp_path / "root", "file=quick", "sub/file=quick")
    other = plant(tmp_path / "other", "file=other")
    with moody_source(tmp_path / "moody") as moody:
        (moody.path / "file").write_bytes(b"slow")
        dirs = (f"{root}::/", f"{other}::/other", f"{moody.path}::/slow")
        with mounted(tmp_path, *dirs) as top:
            yield Mount(top, moody)
            moody.order()


def use_others(top: Path) -> None:
    """Everything but the slow source, twice: what is not known yet, and what is."""
    for turn in range(2):
        for place in (top, top / "other"):
            new = place / f"new-{os.getpid()}-{turn}"
            new.write_bytes(b"x" * 200_000)
            fd = os.open(new, os.O_RDWR)
            os.fsync(fd)
            os.close(fd)
            assert new.read_bytes() == b"x" * 200_000
            os.rename(new, f"{new}-2")
            os.unlink(f"{new}-2")
            assert (place / "file").read_text() in ("quick", "other")
            assert outcome(os.stat, new) == "ENOENT"
        assert {dent.name for dent in listing(top / "sub")} == {b".", b"..", b"file"}
        assert os.statvfs(top).f_namemax == 255


REQUESTS: dict[str, Callable[[Path], object]] = {
    "lookup": lambda slow: os.stat(slow / "file"),
    "getattr": os.stat,
    "opendir": os.listdir,
    "readdir": os.listdir,
    "create": lambda slow: (slow / f"new-{os.getpid()}").touch(),
    "open": lambda slow: (slow / "file").read_bytes(),
    "read": lambda slow: (slow / "file").read_bytes(),
    "write": lambda slow: (slow / "file").write_bytes(b"written"),
    "flush": lambda slow: (slow / "file").write_bytes(b"written"),
    "fsync": lambda slow: sync(slow / "file"),
    "setattr": lambda slow: os.truncate(slow / "file", 1),
    "unlink": lambda slow: os.unlink(slow / "file"),
}


def sync(path: Path) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, b"synced")
        os.fsync(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("request_name", REQUESTS)
def test_others_answer_while_a_source_is_stuck(mount: Mount, request_name: str) -> None:
    mount.moody.order(delays={request_name: STUCK})
    call = REQUESTS[request_name]
    waiting = [start(lambda: call(mount.top / "slow")) for _ in range(WAITERS)]
    time.sleep(0.1)
    in_child(use_others, mount.top, seconds=QUICK)
    assert not any(map(has_ended, waiting))
    mount.moody.order()
    see_off(waiting)


def test_the_directory_that_holds_the_slow_mount_point_is_listed(mount: Mount) -> None:
    mount.moody.order(delays={"*": STUCK})
    waiting = [start(lambda: os.stat(mount.top / "slow/file")) for _ in range(WAITERS)]
    dents = in_child(listing, mount.top, seconds=QUICK)
    kinds = {dent.name: dent.kind for dent in dents}
    assert kinds[b"slow"] == kinds[b"other"] == "dir" and kinds[b"file"] == "file"
    mount.moody.order()
    see_off(waiting)


def test_a_stuck_mount_below_a_source_is_listed_and_passed_by(tmp_path: Path) -> None:
    root = plant(tmp_path / "root", "file=quick", "sub/file=quick")
    other = plant(tmp_path / "other", "file=other")
    with (
        moody_source(root / "slow") as moody,
        mounted(tmp_path, f"{root}::/", f"{other}::/other") as top,
    ):
        (top / "slow/file").write_bytes(b"slow")
        moody.order(delays={"*": STUCK})
        waiting = [start(lambda: os.stat(top / "slow")) for _ in range(WAITERS)]
        time.sleep(0.1)
        assert b"slow" in {dent.name for dent in in_child(listing, top, seconds=QUICK)}
        in_child(use_others, top, seconds=QUICK)
        moody.order()
        see_off(waiting)
        assert in_child((top / "slow/file").read_bytes) == b"slow"


def test_a_late_answer_is_the_right_one(mount: Mount) -> None:
    mount.moody.order(delays={"read": 0.7, "getattr": 0.1})
    begun = time.monotonic()
    assert in_child((mount.top / "slow/file").read_bytes) == b"slow"
    assert time.monotonic() - begun > 0.7


ERRORS = ("ENOSPC", "EIO", "EDQUOT")
FAILING = ("create", "write", "fsync", "flush", "setattr", "unlink", "read", "open", "opendir")


@pytest.mark.parametrize("error", ERRORS)
def test_errors_reach_the_caller_as_they_are(mount: Mount, error: str) -> None:
    daemon = daemon_of(mount.top)
    (mount.moody.path / "other").write_bytes(b"other")
    for request_name in FAILING:
        mount.moody.order(errors={request_name: getattr(errno, error)})
        call = REQUESTS[request_name]
        assert in_child(outcome, call, mount.top / "slow") == error, request_name
        mount.moody.order()
        assert in_child((mount.top / "slow/other").read_bytes) == b"other"
    assert not has_ended(daemon)


def test_what_was_written_before_an_error_stays(mount: Mount) -> None:
    with open(mount.top / "slow/file", "r+b", buffering=0) as file:
        assert file.write(b"first") == 5
        mount.moody.order(errors={"write": errno.ENOSPC})
        assert outcome(lambda: file.write(b"second")) == "ENOSPC"
        mount.moody.order()
        assert file.write(b"third") == 5
    assert (mount.moody.path / "file").read_bytes() == b"firstthird"


@pytest.mark.parametrize(
    ("call", "request_name"), [(os.fsync, "fsync"), (os.fdatasync, "fdatasync")]
)
def test_fsync_reaches_the_hosts(
    mount: Mount, call: Callable[[int], None], request_name: str
) -> None:
    fd = os.open(mount.top / "slow/file", os.O_RDWR)
    os.write(fd, b"data")
    before = mount.moody.requests().count(f"{request_name} ok")
    call(fd)
    assert mount.moody.requests().count(f"{request_name} ok") == before + 1
    os.close(fd)

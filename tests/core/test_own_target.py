"""overlayd's own mount inside a source: an empty directory, never a recursion (SPEC.md section 2).

/proc stands in for the mount: a file system of its own inside the source `/`.
"""

from __future__ import annotations

import errno
import os
import stat

import pytest

from overlayd.host import fs
from support.core_guest import Guest, fails


@pytest.fixture
def guest() -> Guest:
    guest = Guest("/::/")
    guest.overlay.namespace.own_device = os.stat("/proc").st_dev
    return guest


def test_it_shows_as_an_empty_read_only_directory(guest: Guest) -> None:
    assert guest.stat("/proc").stat.mode == stat.S_IFDIR | 0o555
    assert guest.ls("/proc") == []
    assert guest.is_read_only("/proc")
    assert "proc" in guest.ls("/")


def test_its_parent_is_where_it_lies(guest: Guest) -> None:
    assert dict(guest.listing("/proc"))[b".."].number == guest.number("/")


def test_it_is_one_object_each_time(guest: Guest) -> None:
    assert guest.number("/proc") == guest.number("/proc")


def test_nothing_can_be_made_in_it_and_it_cannot_be_taken_away(guest: Guest) -> None:
    for attempt in (guest.make, guest.mkdir):
        with fails(errno.EROFS):
            attempt("/proc/new")
    with fails(errno.EBUSY):
        guest.rmdir("/proc")
    with fails(errno.EBUSY):
        guest.rename("/proc", "/no-such-name-here")
    with fails(errno.ENOENT):
        guest.number("/proc/self")


def test_it_is_never_asked_anything_beyond_its_status(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon that waits for itself hangs: not even a fresh status may be asked for."""
    stat_child = fs.stat_child

    def watched(directory: fs.Fd, name: bytes, *, fresh: bool = False) -> fs.HostStat:
        status = stat_child(directory, name, fresh=fresh)
        assert not (fresh and status.dev == guest.overlay.namespace.own_device)
        return status

    def refused(directory: fs.Fd, name: bytes) -> fs.Fd:
        assert name != b"proc", "opened"
        return fs.Fd(os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory.number))

    monkeypatch.setattr(fs, "stat_child", watched)
    monkeypatch.setattr(fs, "open_child", refused)
    assert guest.ls("/proc") == []
    number = guest.number("/proc")
    guest.attributes.getattr(number)
    assert guest.attributes.listxattr(number, guest.caller) == []
    guest.attributes.access(number, os.R_OK, guest.caller)

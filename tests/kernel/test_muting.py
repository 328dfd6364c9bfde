"""Single files whose modifications are not told, with the kernel's own inotify and fanotify."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from overlayd.host import libc
from overlayd.host.fs import Fd
from overlayd.host.watch import IGNORED, HostWatch
from support.planting import plant

MODIFY = 0x2


@pytest.fixture
def host() -> Iterator[HostWatch]:
    watch = HostWatch()
    yield watch
    watch.close()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return plant(tmp_path / "place", "file=file", "other=other")


def pin(path: Path) -> Fd:
    return Fd(os.open(path, os.O_PATH))


def modify(*paths: Path) -> None:
    for path in paths:
        os.truncate(path, 3)  # neither opened nor closed


def is_ready(host: HostWatch) -> bool:
    return bool(select.select([host.descriptor], [], [], 0)[0])


class Watched:
    """A directory whose `file` is ignored."""

    def __init__(self, host: HostWatch, place: Path) -> None:
        self.host, self.place = host, place
        self.directory, self.file = pin(place), pin(place / "file")
        self.number = host.add(self.directory, directory=True)

    def ignore(self) -> None:
        self.host.ignore(self.number, self.directory, "file", self.file)

    def heed(self) -> None:
        self.host.heed("file", self.file)

    def told(self, *names: str) -> set[str]:
        """What is told of that was modified, if NAMES are."""
        modify(*(self.place / name for name in names))
        assert is_ready(self.host) or not names or names == ("file",)
        events = self.host.take()
        assert all(mask == MODIFY and number == self.number for (number, _), mask in events.items())
        assert not is_ready(self.host)
        return {os.fsdecode(name) for _, name in events}


def test_others_are_told(host: HostWatch, place: Path) -> None:
    watched = Watched(host, place)
    assert watched.told("file", "other") == {"file", "other"}
    watched.ignore()
    assert watched.told("file") == set()
    assert watched.told("file", "other") == {"other"}
    watched.ignore()  # as where its directory comes to be watched once more
    assert watched.told("file", "other") == {"other"}
    watched.heed()
    assert watched.told("file", "other") == {"file", "other"}
    watched.heed()
    assert watched.told("file", "other") == {"file", "other"}


def test_what_was_queued_before_is_told_after(host: HostWatch, place: Path) -> None:
    watched = Watched(host, place)
    watched.ignore()
    modify(place / "other")
    watched.heed()
    assert watched.told() == {"other"}
    watched.ignore()
    modify(place / "other")
    watched.heed()
    watched.ignore()
    assert watched.told() == {"other"}
    assert watched.told("other") == {"other"}


def test_the_file_itself(host: HostWatch, place: Path) -> None:
    file = pin(place / "file")
    number = host.add(file, directory=False)
    host.ignore(number, None, "file", file)
    modify(place / "file")
    assert host.take() == {}
    host.heed("file", file)
    modify(place / "file")
    assert host.take() == {(number, b""): MODIFY}


def test_a_directory_that_is_gone(host: HostWatch, place: Path) -> None:
    watched = Watched(host, place)
    watched.ignore()
    for name in ("file", "other"):
        (place / name).unlink()
    place.rmdir()
    host.take()
    watched.heed()
    descriptor = watched.directory.number
    del watched.directory, watched.file
    host.remove(watched.number)  # the kernel has forgotten it
    assert len(host) == 0
    with pytest.raises(OSError):
        os.fstat(descriptor)  # nor does anybody else keep it
    assert host.take()[watched.number, b""] & IGNORED
    assert not is_ready(host)


def test_a_watch_that_has_ended_is_not_made_anew(host: HostWatch, place: Path) -> None:
    watched = Watched(host, place)
    watched.ignore()
    host.remove(watched.number)
    watched.heed()
    watched.ignore()
    watched.heed()
    assert len(host) == 0
    host.take()
    modify(place / "other", place / "file")
    assert host.take() == {}


def test_all_are_heeded_at_once(host: HostWatch, place: Path) -> None:
    watched = Watched(host, place)
    watched.ignore()
    host.heed_all()
    assert host.add(watched.directory, directory=True) == watched.number
    assert watched.told("file", "other") == {"file", "other"}
    watched.heed()
    watched.ignore()
    assert watched.told("file", "other") == {"other"}


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EMFILE])
def test_what_is_refused_is_not_tried_again(
    host: HostWatch, place: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    asked = 0

    def refuse(*_: object) -> int:
        nonlocal asked
        asked += 1
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(libc, "fanotify_init", refuse)
    watched = Watched(host, place)
    for _ in range(3):
        watched.ignore()
        assert watched.told("file", "other") == {"file", "other"}
        watched.heed()
    assert asked == 1


@pytest.mark.parametrize("refused", ["directory", "file"])
def test_nor_for_that_directory(
    host: HostWatch, place: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    mark = libc.fanotify_mark
    asked = 0

    def refuse(group: int, flags: int, mask: int, path: bytes) -> None:
        nonlocal asked
        asked += 1
        if bool(flags & libc.FAN_MARK_IGNORE) == (refused == "file"):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        mark(group, flags, mask, path)

    monkeypatch.setattr(libc, "fanotify_mark", refuse)
    watched = Watched(host, place)
    watched.ignore()
    before = asked
    for _ in range(3):
        watched.ignore()
        assert watched.told("file", "other") == {"file", "other"}
    assert asked == before
    monkeypatch.setattr(libc, "fanotify_mark", mark)
    elsewhere = Watched(host, plant(place / "sub", "file=file", "other=other"))
    host.take()
    elsewhere.ignore()
    assert elsewhere.told("file", "other") == {"other"}

"""What guests write past the daemon all the time does not wake it, and hides no change of the host.

Looked at through what the kernel says of the daemon's marks (/proc/PID/fdinfo).
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from coherence.test_idle import work
from passthrough.mounts import passing
from passthrough.test_kinds_of_source import KINDS, host_mount
from support.live import daemon_of, is_watching
from support.loop_disk import ext4
from support.planting import plant
from support.processes import in_child, stopped, wait_until
from support.refusing import refuse_fanotify

SOON = 1.0
"""Seconds. What is promised is a tenth of that; the machine may be busy."""
LONG = 3.0
MODIFY = 0x2
PLANTED = ("file=file", "other=other", "sub/file=file", "sub/other=other")


class Marks(NamedTuple):
    """What a daemon hears of, by inode."""

    watched: dict[int, int]
    """Masks of inotify,"""
    told: dict[int, int]
    """those of fanotify,"""
    ignored: dict[int, int]
    """and what it leaves out."""


def marks(top: Path) -> Marks:
    found = Marks({}, {}, {})
    for entry in Path(f"/proc/{daemon_of(top)}/fdinfo").iterdir():
        text = ""
        with suppress(OSError):  # it was closed meanwhile
            text = entry.read_text()
        for line in text.splitlines():
            kind, *words = line.split()
            fields = dict(word.split(":", 1) for word in words if ":" in word)
            if kind == "inotify":
                found.watched[int(fields["ino"], 16)] = int(fields["mask"], 16)
            elif kind == "fanotify" and "ino" in fields:
                inode = int(fields["ino"], 16)
                for masks, name in ((found.told, "mask"), (found.ignored, "ignored_mask")):
                    if int(fields[name], 16):
                        masks[inode] = int(fields[name], 16)
    return found


def is_ignored(top: Path, file: Path) -> bool:
    """Whether modifications of FILE, on the host, are ignored, and in its directory only those."""
    found, directory = marks(top), file.parent.stat().st_ino
    return bool(
        found.ignored.get(file.stat().st_ino) == MODIFY
        and found.told.get(directory, 0) & MODIFY
        and not found.watched[directory] & MODIFY
    )


def is_as_before(top: Path) -> bool:
    """Whether nothing is ignored, and the daemon hears of all that it watches."""
    found = marks(top)
    told = (found.told.get(inode, 0) | mask for inode, mask in found.watched.items())
    return not found.ignored and all(mask & MODIFY for mask in told)


def warm(top: Path, *names: str) -> None:
    """Have the kernel keep what it is told of NAMES."""
    assert wait_until(lambda: is_watching(top))
    for _ in range(3):
        for name in names:
            os.stat(top / name)
        time.sleep(0.12)


@contextmanager
def busy(guest: Path) -> Iterator[int]:
    """GUEST, written all the time until it is ignored, and then open; its descriptor."""
    fd = os.open(guest, os.O_RDWR)
    try:
        write_for_a_while(fd)
        yield fd
    finally:
        os.close(fd)


def write_for_a_while(fd: int) -> None:
    for _ in range(8):
        os.pwrite(fd, b"guest", 0)
        time.sleep(0.02)


def shows(condition: Callable[[], bool]) -> bool:
    return wait_until(condition, SOON)


def appended_shows(guest: Path, host: Path) -> bool:
    """Whether a guest sees what the host appends, and goes on to have open."""
    with host.open("ab", 0) as file:
        for _ in range(3):
            os.stat(guest)
            file.write(b"host")
            if not shows(lambda: os.stat(guest).st_size == host.stat().st_size):
                return False
            time.sleep(0.03)
    return True


@pytest.mark.alone
@pytest.mark.parametrize("kind", ["tmpfs", "ext4", "overlayfs"])
def test_the_daemon_sleeps_while_a_guest_writes(tmp_path: Path, kind: str) -> None:
    make, _ = KINDS[kind]
    with make(tmp_path) as source:
        (source / "other").write_text("other")
        with passing(tmp_path, f"{source}::/") as top:
            warm(top, "file", "other")
            with busy(top / "file") as fd:
                assert wait_until(lambda: is_ignored(top, source / "file"), LONG)
                check_sleep(daemon_of(top), fd)
                assert appended_shows(top / "other", source / "other")
                assert appended_shows(top / "file", source / "file")
                (source / "file").chmod(0o604)
                assert shows(lambda: os.stat(top / "file").st_mode & 0o777 == 0o604)
            assert wait_until(lambda: is_as_before(top), LONG)
            for name in ("file", "other"):
                warm(top, name)
                assert appended_shows(top / name, source / name)


def check_sleep(daemon: int, fd: int) -> None:
    """100,000 writes take some 30 of its turns, with several switches each, unless ignored."""
    time.sleep(0.1)
    before = work(daemon).switches
    for _ in range(100_000):
        os.pwrite(fd, b"guest", 0)
    time.sleep(0.05)
    assert work(daemon).switches - before <= 10


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return plant(tmp_path / "source", *PLANTED)


@contextmanager
def writing(place: Path, source: Path) -> Iterator[tuple[Path, int]]:
    """A mount of SOURCE in which `sub/file` is written so that this is ignored; and it, open."""
    with passing(place, f"{source}::/") as top:
        warm(top, "file", "other", "sub/file", "sub/other")
        with busy(top / "sub/file") as fd:
            assert wait_until(lambda: is_ignored(top, source / "sub/file"), LONG)
            yield top, fd
        assert wait_until(lambda: is_as_before(top), LONG), marks(top)


def test_what_is_written_for_a_moment_is_not_worth_it(tmp_path: Path, source: Path) -> None:
    with passing(tmp_path, f"{source}::/") as top:
        warm(top, "file")
        for _ in range(5):
            (top / "file").write_text("guest")
            time.sleep(0.03)
            found = marks(top)
            assert is_as_before(top) and not found.told


def test_few_directories_stay_as_they_are_then(tmp_path: Path, source: Path) -> None:
    """Each keeps a descriptor."""
    names = [f"d{number}/file" for number in range(40)]
    for name in names:
        plant(source, f"{name}=host")
    with passing(tmp_path, f"{source}::/") as top:
        warm(top, *names)
        for name in names:
            with (top / name).open("wb", 0) as file:
                while not is_ignored(top, source / name):
                    file.write(b"guest")
        assert wait_until(lambda: is_as_before(top), LONG)
        assert len(marks(top).told) == 16
        for name in names[::13]:
            warm(top, name)
            assert appended_shows(top / name, source / name)


def test_several_files_in_several_directories(tmp_path: Path, source: Path) -> None:
    with writing(tmp_path, source) as (top, _), busy(top / "file"):
        with busy(top / "sub/other"):
            for name in ("file", "sub/file", "sub/other"):
                assert wait_until(lambda name=name: is_ignored(top, source / name), LONG)  # type: ignore[misc]
        assert wait_until(
            lambda: (source / "sub/other").stat().st_ino not in marks(top).ignored, LONG
        )
        warm(top, "other", "sub/other")
        for name in ("other", "sub/other"):  # which fanotify tells of now
            assert appended_shows(top / name, source / name)
        assert is_ignored(top, source / "sub/file")


@pytest.mark.alone
def test_a_file_with_several_names(tmp_path: Path, source: Path) -> None:
    """It is watched itself, and lies in two watched directories."""
    os.link(source / "sub/file", source / "second")
    inode = (source / "second").stat().st_ino
    with writing(tmp_path, source) as (top, _):
        warm(top, "second")
        assert inode in marks(top).watched
        with busy(top / "second") as second:
            assert wait_until(lambda: not marks(top).watched[inode] & MODIFY, LONG)
            assert wait_until(lambda: is_ignored(top, source / "sub/file"), LONG)
            check_sleep(daemon_of(top), second)
    # `writing` has seen that all of them tell of everything again.


def test_what_is_attached_by_itself(tmp_path: Path, source: Path) -> None:
    inode = (source / "file").stat().st_ino
    with passing(tmp_path, f"{source}/sub::/", f"{source}/file::/alone") as top:
        warm(top, "alone", "other")
        with busy(top / "alone"):
            assert wait_until(lambda: not marks(top).watched.get(inode, MODIFY) & MODIFY, LONG)
            assert appended_shows(top / "alone", source / "file")
        assert wait_until(lambda: is_as_before(top), LONG)
        warm(top, "alone")
        assert appended_shows(top / "alone", source / "file")


def test_a_directory_that_is_renamed_meanwhile(tmp_path: Path, source: Path) -> None:
    with writing(tmp_path, source) as (top, fd):
        (source / "sub").rename(source / "moved")
        assert shows(lambda: (top / "moved/other").exists())
        warm(top, "moved/other")
        assert appended_shows(top / "moved/other", source / "moved/other")
        os.pwrite(fd, b"after", 0)
        assert (source / "moved/file").read_text() == "after"


def test_one_that_is_removed_and_made_again(tmp_path: Path, source: Path) -> None:
    with writing(tmp_path, source) as (top, fd):
        shutil.rmtree(source / "sub")
        assert shows(lambda: not (top / "sub").exists())
        os.pwrite(fd, b"after", 0)
        plant(source, "sub/other=another")
        assert shows(lambda: (top / "sub/other").exists())
        warm(top, "sub/other")
        assert appended_shows(top / "sub/other", source / "sub/other")


def test_a_file_that_is_moved_meanwhile(tmp_path: Path, source: Path) -> None:
    """To another directory, and then out of sight."""
    with writing(tmp_path, source) as (top, fd):
        (source / "sub/file").rename(source / "moved")
        write_for_a_while(fd)
        assert wait_until(lambda: is_ignored(top, source / "moved"), LONG)
        (source / "moved").rename(tmp_path / "away")
        os.pwrite(fd, b"after", 0)
        for name in ("other", "sub/other"):
            assert appended_shows(top / name, source / name)


def test_lost_events(tmp_path: Path, source: Path) -> None:
    """More modifications of other files than fanotify keeps: all is asked for again."""
    limit = int(Path("/proc/sys/fs/fanotify/max_queued_events").read_text())
    names = [f"sub/{number}" for number in range(limit + 100)]
    for name in names:
        (source / name).touch()
    with writing(tmp_path, source) as (top, fd):
        warm(top, names[-1])
        with stopped(daemon_of(top)):
            for name in names:  # which inotify does not tell of, as opening and closing would be
                os.truncate(source / name, 7)
        assert shows(lambda: os.stat(top / names[-1]).st_size == 7)
        assert wait_until(lambda: is_as_before(top), LONG)
        write_for_a_while(fd)
        assert wait_until(lambda: is_ignored(top, source / "sub/file"), LONG)
        assert appended_shows(top / "sub/other", source / "sub/other")


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_without_fanotify(tmp_path: Path, source: Path, number: int) -> None:
    def use() -> None:
        refuse_fanotify(number)
        with passing(tmp_path, f"{source}::/") as top:
            warm(top, "file", "other")
            with busy(top / "file"):
                assert is_as_before(top)
                assert appended_shows(top / "other", source / "other")
                assert appended_shows(top / "file", source / "file")
            assert appended_shows(top / "file", source / "file")

    in_child(use)


def test_a_file_system_that_it_does_not_take(tmp_path: Path, source: Path) -> None:
    """It takes such without a number of their own, but none beside others."""
    with (
        ext4(tmp_path, mib=16, uuid="clear") as nameless,
        passing(tmp_path, f"{source}::/", f"{plant(nameless / 'top', *PLANTED)}::/top") as top,
    ):
        warm(top, "file", "top/file", "top/other")
        with busy(top / "file"), busy(top / "top/file"):
            assert wait_until(lambda: is_ignored(top, source / "file"), LONG)
            found = marks(top)
            assert found.watched[(nameless / "top").stat().st_ino] & MODIFY
            assert len(found.told) == len(found.ignored) == 1
            for name in ("file", "other"):
                assert appended_shows(top / "top" / name, nameless / "top" / name)
        assert wait_until(lambda: is_as_before(top), LONG)


@pytest.mark.parametrize("cache", ["none", "0.05"])
def test_other_modes_hear_of_nothing(tmp_path: Path, source: Path, cache: str) -> None:
    options = ["--cache", cache]
    with passing(tmp_path, f"{source}::/", options=options) as top, busy(top / "file"):
        assert marks(top) == Marks({}, {}, {})


def test_nothing_stays_busy(tmp_path: Path) -> None:
    """Not the file system of a source, nor one in it, once the file that was written is closed."""
    with host_mount(tmp_path / "source", "-t", "tmpfs", "tmpfs") as source:
        plant(source, *PLANTED)
        with passing(tmp_path, f"{source}::/") as top:
            warm(top, "file")
            with busy(top / "file"):
                assert wait_until(lambda: is_ignored(top, source / "file"), LONG)
            assert wait_until(lambda: is_as_before(top), LONG)
        with passing(tmp_path, f"{source}::/") as top:  # and where the daemon ends meanwhile
            daemon = daemon_of(top)
            warm(top, "file")
            child = os.fork()
            if child == 0:
                with busy(top / "file"):
                    time.sleep(60)
                os._exit(0)
            assert wait_until(lambda: is_ignored(top, source / "file"), LONG)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            assert daemon == daemon_of(top)

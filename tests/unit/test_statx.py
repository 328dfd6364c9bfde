"""statx(2) by the extension and without: the same in every field and in every error."""

from __future__ import annotations

import fcntl
import gc
import os
import socket
import stat
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from overlayd.host import fs, libc

with suppress(ImportError):
    from overlayd.host import _calls

StatxMany = Callable[[int, list[bytes], int, type[fs.HostStat]], list[fs.HostStat | None]]
Hold = Callable[[int, bytes, type[fs.HostStat]], tuple[int, fs.HostStat]]
Statx = Callable[[int, bytes, int, type[fs.HostStat]], fs.HostStat]


def by_extension(*arguments: Any) -> fs.HostStat:
    statx: Statx = _calls.statx
    return statx(*arguments)


every_way = pytest.mark.parametrize("statx", [by_extension, fs._statx_by_ctypes])


@pytest.fixture(autouse=True)
def built() -> None:
    if "_calls" not in globals():
        pytest.fail("the extension overlayd.host._calls was not built, for want of a C compiler")


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """One object of each type, and some with extreme attributes."""
    (tmp_path / "dir").mkdir(mode=0o1750)
    (tmp_path / "file").write_bytes(b"x" * 5000)
    os.chmod(tmp_path / "file", 0o6711)
    os.chown(tmp_path / "file", 4_000_000_000, 3_999_999_999)
    os.utime(tmp_path / "file", ns=(1, 2_000_000_000_999_999_999))
    (tmp_path / "old").touch()
    os.utime(tmp_path / "old", ns=(-1_500_000_000, -1))
    with open(tmp_path / "sparse", "wb") as sparse:
        sparse.truncate(1 << 43)
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    os.mknod(tmp_path / "device", stat.S_IFCHR | 0o600, os.makedev(511, 70_000))
    with socket.socket(socket.AF_UNIX) as it:
        it.bind(str(tmp_path / "socket"))
    os.link(tmp_path / "old", tmp_path / os.fsdecode(b"\xff\xfe"))
    return tmp_path


def test_both_say_the_same(zoo: Path) -> None:
    directory = os.open(zoo, os.O_PATH)
    names = os.listdir(os.fsencode(zoo))
    assert len(names) == 9
    for flags in (libc.AT_SYMLINK_NOFOLLOW, libc.AT_STATX_DONT_SYNC | libc.AT_SYMLINK_NOFOLLOW):
        for name in names:
            one = _calls.statx(directory, name, flags, fs.HostStat)
            other = fs._statx_by_ctypes(directory, name, flags, fs.HostStat)
            assert one == other, name
            assert type(one) is fs.HostStat
    os.close(directory)


@every_way
def test_fields_are_what_stat_2_says(zoo: Path, statx: Statx) -> None:
    directory = os.open(zoo, os.O_PATH)
    for name in os.listdir(os.fsencode(zoo)):
        found = statx(directory, name, libc.AT_SYMLINK_NOFOLLOW, fs.HostStat)
        host = os.stat(name, dir_fd=directory, follow_symlinks=False)
        assert (found.dev, found.ino) == (host.st_dev, host.st_ino)
        assert (found.mode, found.nlink) == (host.st_mode, host.st_nlink)
        assert (found.uid, found.gid, found.rdev) == (host.st_uid, host.st_gid, host.st_rdev)
        assert (found.size, found.blocks) == (host.st_size, host.st_blocks)
        times = (host.st_atime_ns, host.st_mtime_ns, host.st_ctime_ns)
        assert (found.atime_ns, found.mtime_ns, found.ctime_ns) == times
    os.close(directory)


@pytest.mark.parametrize("statx_many", [_calls.statx_many, fs._statx_many_by_ctypes])
def test_many_are_asked_like_one_after_another(zoo: Path, statx_many: StatxMany) -> None:
    directory = os.open(zoo, os.O_PATH)
    there = os.listdir(os.fsencode(zoo))
    for count in (0, 1, 31, 32, 33, 100):  # the extension asks 32 at once
        names = [*there, b"missing", b"x" * 256, b"file/below"] * 10
        answers = statx_many(directory, names[:count], libc.AT_SYMLINK_NOFOLLOW, fs.HostStat)
        assert len(answers) == count
        for name, answer in zip(names, answers, strict=False):
            if name not in there:
                assert answer is None, name
                continue
            assert answer == _calls.statx(directory, name, libc.AT_SYMLINK_NOFOLLOW, fs.HostStat)
            assert type(answer) is fs.HostStat
    os.close(directory)
    assert statx_many(directory, [b"file"], 0, fs.HostStat) == [None]


@every_way
def test_an_opened_object_is_asked_by_its_descriptor(zoo: Path, statx: Statx) -> None:
    fd = os.open(zoo / "link", os.O_PATH | os.O_NOFOLLOW)
    assert stat.S_ISLNK(statx(fd, b"", libc.AT_EMPTY_PATH, fs.HostStat).mode)
    os.close(fd)


@pytest.mark.parametrize("hold", [_calls.hold, fs._hold_by_os])
def test_what_is_held_is_told_of_and_never_followed(zoo: Path, hold: Hold) -> None:
    directory = os.open(zoo, os.O_PATH)
    for name in os.listdir(os.fsencode(zoo)):
        number, status = hold(directory, name, fs.HostStat)
        assert status == _calls.statx(directory, name, libc.AT_SYMLINK_NOFOLLOW, fs.HostStat), name
        assert status == _calls.statx(number, b"", libc.AT_EMPTY_PATH, fs.HostStat)
        assert type(status) is fs.HostStat
        flags = fcntl.fcntl(number, fcntl.F_GETFL)
        assert flags & os.O_PATH
        assert not os.get_inheritable(number)
        os.close(number)
    with pytest.raises(FileNotFoundError):
        hold(directory, b"missing", fs.HostStat)
    with pytest.raises(NotADirectoryError):
        hold(directory, b"file/below", fs.HostStat)
    os.close(directory)
    with pytest.raises(OSError, match="Bad file descriptor"):
        hold(directory, b"file", fs.HostStat)


@every_way
def test_errors_are_those_of_the_call(tmp_path: Path, statx: Statx) -> None:
    directory = os.open(tmp_path, os.O_PATH)
    with pytest.raises(FileNotFoundError):
        statx(directory, b"missing", 0, fs.HostStat)
    with pytest.raises(OSError, match="File name too long"):
        statx(directory, b"x" * 256, 0, fs.HostStat)
    os.close(directory)
    with pytest.raises(OSError, match="Bad file descriptor"):
        statx(directory, b"missing", 0, fs.HostStat)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0, b"a\0b", 0, fs.HostStat), ValueError),
        ((0, "text", 0, fs.HostStat), TypeError),
        ((0, b"x", 0, list), TypeError),
        ((1 << 40, b"x", 0, fs.HostStat), OverflowError),
        ((), TypeError),
    ],
)
def test_wrong_arguments_are_refused(arguments: tuple[object, ...], error: type) -> None:
    with pytest.raises(error):
        _calls.statx(*arguments)  # type: ignore[arg-type]
    with pytest.raises(error):
        _calls.hold(*arguments[:2], *arguments[3:])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((0, [b"x", b"a\0b"], 0, fs.HostStat), ValueError),
        ((0, [b"x", "text"], 0, fs.HostStat), TypeError),
        ((0, (b"x",), 0, fs.HostStat), TypeError),
        ((0, [b"x"], 0, list), TypeError),
    ],
)
def test_wrong_lists_are_refused(arguments: tuple[object, ...], error: type) -> None:
    with pytest.raises(error):
        _calls.statx_many(*arguments)  # type: ignore[arg-type]


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_PATH)
    (tmp_path / "x").touch()

    def ask(times: int) -> None:
        for _ in range(times):
            _calls.statx(directory, b"x", 0, fs.HostStat)
            with suppress(FileNotFoundError):
                _calls.statx(directory, b"y", 0, fs.HostStat)
            os.close(_calls.hold(directory, b"x", fs.HostStat)[0])
            with suppress(FileNotFoundError):
                _calls.hold(directory, b"y", fs.HostStat)
            _calls.statx_many(directory, [b"x", b"y"] * 20, 0, fs.HostStat)
            with suppress(ValueError):
                _calls.statx_many(directory, [b"x"] * 40 + [b"\0"], 0, fs.HostStat)
        gc.collect()

    gc.collect()  # what tests before this one have left to be closed
    descriptors = len(os.listdir("/proc/self/fd")) - 1
    tracemalloc.start()
    ask(100)
    before, _ = tracemalloc.get_traced_memory()
    ask(2000)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    os.close(directory)
    assert after - before < 20_000
    assert len(os.listdir("/proc/self/fd")) == descriptors

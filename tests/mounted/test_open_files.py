"""Open files and odd objects on a real mount: what only the kernel can put to the test."""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.live import make_dirs
from support.mounting import mounted
from support.processes import in_child, outcome, tried

pytestmark = pytest.mark.usefixtures("data_way")

GIB = 1 << 30


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_dirs(tmp_path, "source")[0]


@pytest.fixture
def top(source: Path, tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path, f"{source}::/") as target:
        yield target


@contextmanager
def opened(path: Path, flags: int, mode: int = 0o644) -> Iterator[int]:
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


# -- files without a name -------------------------------------------------------------------------


@pytest.mark.parametrize("remover", ["guest", "host"])
def test_a_removed_file_stays_usable_while_open(top: Path, source: Path, remover: str) -> None:
    with opened(top / "file", os.O_RDWR) as fd:
        os.unlink((top if remover == "guest" else source) / "file")
        assert os.pread(fd, 100, 0) == b"source"
        assert os.pwrite(fd, b"still written", 0) == 13
        os.ftruncate(fd, 5)
        os.fchmod(fd, 0o600)
        os.fsync(fd)
        status = os.fstat(fd)
        assert (status.st_size, stat.S_IMODE(status.st_mode), status.st_nlink) == (5, 0o600, 0)
        assert Path(f"/proc/self/fd/{fd}").read_bytes() == b"still"
        time.sleep(0.2 if remover == "host" else 0)  # what the kernel may still take for true
        (top / "file").write_text("another")
        assert os.pread(fd, 100, 0) == b"still"
        assert os.fstat(fd).st_ino != os.stat(top / "file").st_ino
    assert (source / "file").read_text() == "another"


def test_a_replaced_file_stays_usable_while_open(top: Path) -> None:
    (top / "new").write_text("new")
    with opened(top / "file", os.O_RDWR) as fd:
        os.rename(top / "new", top / "file")
        assert os.pread(fd, 100, 0) == b"source"
        assert os.pwrite(fd, b"S", 0) == 1
    assert (top / "file").read_text() == "new"


def test_many_files_open_at_once(top: Path) -> None:
    """More than the soft limit a process starts with (1024)."""
    for number in range(1500):
        (top / f"f{number}").write_text(str(number))

    def hold_all() -> int:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
        held = [os.open(top / f"f{number}", os.O_RDONLY) for number in range(1500)]
        return sum(os.pread(fd, 10, 0) == str(number).encode() for number, fd in enumerate(held))

    assert in_child(hold_all, seconds=30) == 1500


def test_a_working_directory_that_is_removed(top: Path, source: Path) -> None:
    (top / "sub/below").mkdir(parents=True)

    def stay() -> list[str]:
        os.chdir(top / "sub/below")
        os.rmdir(top / "sub/below")
        return [
            outcome(lambda: os.stat("anything")),
            outcome(lambda: os.mkdir("new")),
            outcome(lambda: Path("file").touch()),
            str(os.listdir(".")),
            outcome(os.getcwd),
            outcome(lambda: os.stat("../file")),
        ]

    answers = in_child(stay)
    assert answers[:5] == ["ENOENT", "ENOENT", "ENOENT", "[]", "ENOENT"]
    assert os.listdir(source / "sub") == []


# -- data -----------------------------------------------------------------------------------------


def test_a_sparse_file_beyond_4_gib(top: Path, source: Path) -> None:
    with opened(top / "big", os.O_RDWR | os.O_CREAT) as fd:
        assert os.pwrite(fd, b"end", 5 * GIB) == 3
        assert os.fstat(fd).st_size == 5 * GIB + 3
        assert os.pread(fd, 10, 5 * GIB) == b"end"
        assert os.pread(fd, 4, 4 * GIB - 2) == b"\0" * 4
        assert os.lseek(fd, 0, os.SEEK_END) == 5 * GIB + 3
        os.ftruncate(fd, 6 * GIB)
    assert (source / "big").stat().st_size == 6 * GIB
    assert (source / "big").stat().st_blocks < 1000
    assert (top / "big").stat().st_blocks == (source / "big").stat().st_blocks


def test_large_reads_and_writes_are_whole(top: Path, source: Path) -> None:
    content = os.urandom(5_000_001)
    with opened(top / "data", os.O_RDWR | os.O_CREAT) as fd:
        assert os.write(fd, content) == len(content)
        assert os.pread(fd, len(content) + 1, 0) == content
        assert os.pwrite(fd, b"X" * 70_000, 1_048_570) == 70_000
    expected = content[:1_048_570] + b"X" * 70_000 + content[1_118_570:]
    assert (source / "data").read_bytes() == expected == (top / "data").read_bytes()


def test_appending_writers_do_not_overwrite_each_other(top: Path, source: Path) -> None:
    with (
        opened(top / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT) as one,
        opened(top / "log", os.O_WRONLY | os.O_APPEND) as two,
    ):
        for number in range(50):
            os.write(one, f"one {number}\n".encode())
            os.write(two, f"two {number}\n".encode())
    lines = (source / "log").read_text().splitlines()
    assert lines == [f"{who} {number}" for number in range(50) for who in ("one", "two")]


def test_appending_to_what_the_host_appends_to(tmp_path: Path, source: Path) -> None:
    with (
        mounted(tmp_path, f"{source}::/", options=["--cache", "none"]) as top,
        opened(top / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT) as guest,
        opened(source / "log", os.O_WRONLY | os.O_APPEND) as host,
    ):
        for number in range(20):
            os.write(guest, f"guest {number}\n".encode())
            os.write(host, f"host {number}\n".encode())
    lines = (source / "log").read_text().splitlines()
    assert lines == [f"{who} {number}" for number in range(20) for who in ("guest", "host")]


def test_mapped_files(top: Path, source: Path) -> None:
    (top / "mapped").write_bytes(b"\0" * 10_000)
    with opened(top / "mapped", os.O_RDWR) as fd, mmap.mmap(fd, 10_000) as shared:
        shared[5000:5005] = b"hello"
        assert os.pread(fd, 5, 5000) == b"hello"
        os.pwrite(fd, b"world", 6000)
        assert shared[6000:6005] == b"world"
        shared.flush()
        with mmap.mmap(fd, 10_000, flags=mmap.MAP_PRIVATE) as private:
            private[0:4] = b"mine"
        assert shared[0:4] == b"\0" * 4
    content = (source / "mapped").read_bytes()
    assert (content[5000:5005], content[6000:6005], len(content)) == (b"hello", b"world", 10_000)


def test_a_program_runs_from_the_mount(top: Path) -> None:
    (top / "tool").write_text("#!/bin/sh\nexit 7\n")
    (top / "tool").chmod(0o755)
    assert in_child(lambda: os.spawnl(os.P_WAIT, top / "tool", "tool")) == 7


def test_locks_between_guests(top: Path) -> None:
    with opened(top / "file", os.O_RDWR) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        fcntl.lockf(held, fcntl.LOCK_EX)

        def other() -> list[str]:
            with opened(top / "file", os.O_RDWR) as fd:
                wanted = fcntl.LOCK_EX | fcntl.LOCK_NB
                return [
                    outcome(lambda: fcntl.flock(fd, wanted)),
                    outcome(lambda: fcntl.lockf(fd, wanted)),
                ]

        assert in_child(other) == ["EAGAIN", "EAGAIN"]


def test_opening_flags(top: Path) -> None:
    assert outcome(lambda: os.open(top / "file", os.O_CREAT | os.O_EXCL)) == "EEXIST"
    assert outcome(lambda: os.open(top / "file", os.O_RDONLY | os.O_DIRECTORY)) == "ENOTDIR"
    assert outcome(lambda: os.open(top, os.O_WRONLY)) == "EISDIR"
    (top / "link").symlink_to("file")
    assert outcome(lambda: os.open(top / "link", os.O_RDONLY | os.O_NOFOLLOW)) == "ELOOP"
    with opened(top / "file", os.O_WRONLY | os.O_TRUNC):
        assert os.stat(top / "file").st_size == 0
    with opened(top / "file", os.O_RDWR | os.O_SYNC) as fd:
        assert os.write(fd, b"synced") == 6


def test_what_the_interface_does_not_offer_is_refused(top: Path) -> None:
    """Never a silent success: the caller falls back, or knows."""
    with opened(top / "file", os.O_RDWR) as fd:
        before = os.fstat(fd).st_size
        ended = outcome(lambda: os.posix_fallocate(fd, 0, 100_000))
        # glibc itself writes zeros where the kernel says EOPNOTSUPP.
        assert ended == "ok" and os.fstat(fd).st_size == 100_000 > before
    unnamed = outcome(lambda: os.close(os.open(top, os.O_TMPFILE | os.O_RDWR)))
    assert unnamed == "ENOTSUP"  # Linux: the same number as EOPNOTSUPP


# -- odd objects ----------------------------------------------------------------------------------


def test_special_files(top: Path, source: Path) -> None:
    os.mkfifo(top / "fifo", 0o600)
    os.mknod(top / "device", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    assert stat.S_ISFIFO(os.stat(source / "fifo").st_mode)
    status = os.stat(top / "device")
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)
    # The mount is nodev: the number may be looked at, the device is out of reach.
    assert outcome(lambda: os.open(top / "device", os.O_RDWR)) == "EACCES"
    with opened(top / "fifo", os.O_RDWR) as fd:
        os.write(fd, b"through the pipe")
        assert os.read(fd, 100) == b"through the pipe"


def test_a_socket(top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(top)  # socket addresses are short, temporary paths long
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind("socket")
        server.listen()
        assert stat.S_ISSOCK(os.stat("socket").st_mode)
        client.connect("socket")
        connection, _ = server.accept()
        connection.close()
    monkeypatch.undo()


def test_links_are_stored_as_given_and_resolve_inside(top: Path, source: Path) -> None:
    (top / "a/b").mkdir(parents=True)
    rows = {"file": "file", "/file": "../../file", "../../../../file": "../../file", "/": "../.."}
    for number, (target, read) in enumerate(rows.items()):
        link = f"a/b/link{number}"
        os.symlink(target, top / link)
        assert os.readlink(source / link) == target
        assert os.readlink(top / link) == read
        assert os.lstat(top / link).st_size == len(read)
    for number in range(1, 3):
        assert (top / f"a/b/link{number}").read_text() == "source"
    os.rename(top / "a/b/link1", top / "shallower")
    assert os.readlink(top / "shallower") == "file"
    assert os.lstat(top / "shallower").st_size == 4


def test_verbatim_links(tmp_path: Path, source: Path) -> None:
    with mounted(tmp_path, f"{source}::/", options=["--symlinks", "verbatim"]) as top:
        os.symlink("/file", top / "link")
        assert os.readlink(top / "link") == "/file"
        assert os.lstat(top / "link").st_size == 5


def test_extended_attributes(top: Path, source: Path) -> None:
    os.setxattr(top / "file", b"user.name", b"\0value\xff")
    assert os.getxattr(source / "file", b"user.name") == b"\0value\xff"
    assert os.listxattr(top / "file") == ["user.name"]
    os.removexattr(top / "file", b"user.name")
    assert outcome(lambda: os.getxattr(top / "file", b"user.name")) == "ENODATA"
    assert outcome(lambda: os.removexattr(top / "file", b"user.name")) == "ENODATA"


def test_file_system_status_is_the_hosts(top: Path, source: Path) -> None:
    mine, hosts = os.statvfs(top), os.statvfs(source)
    assert (mine.f_frsize, mine.f_blocks, mine.f_files) == (
        hosts.f_frsize,
        hosts.f_blocks,
        hosts.f_files,
    )
    assert mine.f_namemax == 255


# -- read-only preopens ---------------------------------------------------------------------------


def test_reading_through_ro_leaves_the_access_time_alone(tmp_path: Path, source: Path) -> None:
    (source / "sub").mkdir()
    long_ago = 1_000_000_000_000_000_000

    def read_all(top: Path, place: str) -> tuple[int, int]:
        for path in (source / "file", source / "sub"):
            os.utime(path, ns=(long_ago, os.stat(path).st_mtime_ns))
        assert (top / place / "file").read_text() == "source"
        assert os.listdir(top / place / "sub") == []
        return os.stat(source / "file").st_atime_ns, os.stat(source / "sub").st_atime_ns

    with mounted(tmp_path, f"{source}::/r::ro", options=["--cache", "none"]) as top:
        assert read_all(top, "r") == (long_ago, long_ago)
    with mounted(tmp_path, f"{source}::/w", options=["--cache", "none"]) as top:
        # The test means something: a writable preopen does touch it (relatime, and it is old).
        assert read_all(top, "w")[0] > long_ago


CHANGES: list[Callable[[Path], object]] = [
    lambda top: (top / "file").write_text("x"),
    lambda top: os.open(top / "file", os.O_RDONLY | os.O_TRUNC),
    lambda top: os.open(top / "file", os.O_WRONLY | os.O_APPEND),
    lambda top: os.truncate(top / "file", 0),
    lambda top: os.chmod(top / "file", 0o777),
    lambda top: os.chown(top / "file", 1, 1),
    lambda top: os.utime(top / "file"),
    lambda top: os.setxattr(top / "file", b"user.x", b""),
    lambda top: os.unlink(top / "file"),
    lambda top: os.rename(top / "file", top / "new"),
    lambda top: os.link(top / "file", top / "new"),
    lambda top: os.symlink("x", top / "new"),
    lambda top: os.mkdir(top / "new"),
    lambda top: os.rmdir(top / "sub"),
    lambda top: os.mkfifo(top / "new"),
    lambda top: (top / "new").touch(),
]


@pytest.mark.parametrize(("style", "expected"), [("posix", "EROFS"), ("wasi", "EPERM")])
def test_nothing_changes_through_ro(
    tmp_path: Path, source: Path, style: str, expected: str
) -> None:
    (source / "sub").mkdir()
    before = os.stat(source / "file")
    with mounted(tmp_path, f"{source}::/::ro", options=["--errors", style]) as top:
        for change in CHANGES:
            assert tried(change, top) == expected
        assert not os.access(top / "file", os.W_OK)
        assert os.access(top / "file", os.R_OK)
    assert os.stat(source / "file") == before
    assert sorted(os.listdir(source)) == ["file", "sub"]

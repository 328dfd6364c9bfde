"""Opening, creating, reading, writing; and what is no regular file."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overlayd.host import fs
from support.core_guest import Guest, fails
from support.planting import plant


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    plant(tmp_path, "a/f=0123456789", "a/d/")
    return Guest(f"{tmp_path}/a::/")


# -- what is no regular file: the kernel opens those itself, nothing here may wait for them -----


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "flags", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_NONBLOCK]
)
@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "link"])
def test_opening_anything_else_never_blocks(
    guest: Guest, tmp_path: Path, kind: str, flags: int
) -> None:
    path = tmp_path / "a/special"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o600)
    elif kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    else:
        path.symlink_to("f")
    with fails(errno.EACCES):
        guest.open("/special", flags)
    guest.unlink("/special")


@pytest.mark.timeout(10)
def test_create_never_opens_a_fifo_that_came_to_be_meanwhile(guest: Guest, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a/fifo")
    with fails(errno.EACCES):
        guest.create("/fifo")
    with fails(errno.EEXIST):
        guest.create("/fifo", flags=os.O_RDWR | os.O_EXCL)


@pytest.mark.parametrize(
    ("mode", "device"),
    [(stat.S_IFIFO, 0), (stat.S_IFSOCK, 0), (stat.S_IFREG, 0), (stat.S_IFCHR, os.makedev(1, 3))],
)
def test_nodes_of_every_kind(guest: Guest, mode: int, device: int) -> None:
    made = guest.mknod("/new", mode | 0o640, device).stat
    assert made.mode == mode | 0o640
    assert made.rdev == device
    guest.link("/new", "/d/link")
    guest.rename("/new", "/d/moved")
    assert guest.number("/d/link") == guest.number("/d/moved")


# -- create ---------------------------------------------------------------------------------------


def test_create_and_what_exists(guest: Guest) -> None:
    created = guest.data.create(guest.number("/"), b"new", 0o640, os.O_RDWR, guest.caller)
    assert created.attrs.number == guest.number("/new")
    assert guest.data.write(created.handle, 0, b"abc") == 3
    with fails(errno.EEXIST):
        guest.create("/f", flags=os.O_RDWR | os.O_EXCL)
    handle = guest.create("/f")
    assert guest.data.read(handle, 0, 99) == b"0123456789", "without O_EXCL it is opened"
    with fails(errno.EISDIR):
        guest.create("/d")


def test_create_never_goes_through_a_link(guest: Guest, tmp_path: Path) -> None:
    plant(tmp_path, "a/l->../outside")
    with fails(errno.EACCES):
        guest.create("/l")
    assert not (tmp_path / "outside").exists()


def test_create_with_a_mode_that_forbids_what_it_does(guest: Guest) -> None:
    handle = guest.create("/new", 0o000, os.O_RDWR)
    assert guest.data.write(handle, 0, b"x") == 1


def test_truncating_on_open(guest: Guest) -> None:
    guest.data.release(guest.open("/f", os.O_WRONLY | os.O_TRUNC))
    assert guest.stat("/f").size == 0


# -- reading and writing --------------------------------------------------------------------------


def test_reading_past_the_end(guest: Guest) -> None:
    handle = guest.open("/f")
    assert guest.data.read(handle, 8, 99) == b"89"
    assert guest.data.read(handle, 10, 1) == b""
    assert guest.data.read(handle, 1 << 40, 1) == b""


def test_what_the_page_cache_has_is_read_at_once(guest: Guest) -> None:
    handle = guest.open("/f")
    guest.data.read(handle, 0, 10)
    assert guest.data.read_cached(handle, 2, 3) in (b"234", None)
    assert guest.data.read_cached(handle, 8, 99) in (b"89", None)
    assert guest.data.read_cached(handle, 99, 1) in (b"", None)


def test_holes(guest: Guest) -> None:
    handle = guest.open("/f", os.O_RDWR)
    guest.data.write(handle, 12, b"end")
    assert guest.data.read(handle, 9, 99) == b"9\0\0end"


def test_appending(guest: Guest) -> None:
    handle = guest.open("/f", os.O_WRONLY | os.O_APPEND)
    guest.data.write(handle, 10, b"X")
    assert guest.read("/f") == "0123456789X"


@given(
    writes=st.lists(
        st.tuples(st.integers(0, 300_000), st.binary(min_size=1, max_size=64)), max_size=8
    )
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(guest: Guest, writes: list[tuple[int, bytes]]) -> None:
    handle = guest.open("/f", os.O_RDWR | os.O_TRUNC)
    model = bytearray()
    for offset, data in writes:
        model.extend(bytes(max(0, offset + len(data) - len(model))))
        model[offset : offset + len(data)] = data
        assert guest.data.write(handle, offset, data) == len(data)
    assert guest.data.read(handle, 0, 1 << 20) == bytes(model)
    guest.data.release(handle)


def test_what_a_handle_was_not_opened_for(guest: Guest) -> None:
    reading, writing = guest.open("/f"), guest.open("/f", os.O_WRONLY)
    listing = guest.names.opendir(guest.number("/d"), guest.caller)
    with fails(errno.EBADF):
        guest.data.write(reading, 0, b"x")
    with fails(errno.EBADF):
        guest.data.read(writing, 0, 1)
    with fails(errno.EBADF):
        guest.data.write(listing, 0, b"x")
    with fails(errno.EISDIR):
        guest.data.read(listing, 0, 1)


def test_a_synthetic_directory_is_no_file(tmp_path: Path) -> None:
    plant(tmp_path, "a/")
    guest = Guest(f"{tmp_path}/a::/s/t")
    handle = guest.names.opendir(guest.number("/s"), guest.caller)
    for attempt in (
        lambda: guest.data.read(handle, 0, 1),
        lambda: guest.data.write(handle, 0, b""),
    ):
        with fails(errno.EBADF):
            attempt()
    guest.data.fsync(handle, False)
    guest.data.flush(handle)
    guest.data.release(handle)


def test_fsync_and_flush(guest: Guest) -> None:
    handle = guest.open("/f", os.O_RDWR)
    for data_only in (True, False):
        guest.data.fsync(handle, data_only)
    guest.data.flush(handle)
    directory = guest.names.opendir(guest.number("/d"), guest.caller)
    guest.data.fsync(directory, False)


def test_a_full_device_says_so(guest: Guest, tmp_path: Path) -> None:
    """The limit on file size stands in for it."""
    handle = guest.open("/f", os.O_RDWR)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        assert guest.data.write(handle, 4000, bytes(200)) == 96, "what fits is acknowledged"
        with fails(errno.EFBIG):
            guest.data.write(handle, 4096, b"x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_file_in_memory_is_read_at_once(tmp_path: Path) -> None:
    """tmpfs refuses RWF_NOWAIT, and never makes a reader wait."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        Path(place, "file").write_bytes(b"0123456789")
        guest = Guest(f"{place}::/")
        handle = guest.open("/file", os.O_RDONLY)
        data = guest.data.read_cached(handle, 2, 5)
        assert data is not None and bytes(data) == b"23456"


# -- what goes wrong half-way ---------------------------------------------------------------------


class Registry:
    """Takes every file, and counts those that it still has."""

    def __init__(self) -> None:
        self.kept = 0

    def register(self, _fd: fs.Fd) -> int:
        self.kept += 1
        return self.kept

    def give_back(self, _backing: int) -> None:
        self.kept -= 1


def test_no_way_is_left_of_an_open_that_failed(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that goes away right after it has opened a file."""
    registry = guest.data.ways.registry = Registry()
    attempts: tuple[Callable[[], object], ...] = (
        lambda: guest.open("/f", os.O_RDWR),
        lambda: guest.create("/new"),
    )
    with monkeypatch.context() as failing:
        failing.setattr(fs, "has_set_id", gone)
        for attempt in attempts:
            with fails(errno.ENOTCONN):
                attempt()
    assert (registry.kept, guest.data.ways.backings, len(guest.overlay.namespace.handles)) == (
        0,
        0,
        0,
    )
    handle = guest.open("/f", os.O_RDWR)
    assert (registry.kept, guest.data.ways.backings) == (1, 1)
    guest.data.release(handle)
    assert (registry.kept, guest.data.ways.backings) == (0, 0)


def gone(_fd: fs.Fd) -> bool:
    raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

"""Sizes and times are right at once, and nobody is told each time that something was written."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from coherence.counted import CountedMount, counted
from passthrough.mounts import LARGE, status, told
from support.live import daemon_of
from support.planting import plant
from support.processes import in_child, wait_until

pytestmark = pytest.mark.alone

LONG_AGO = 1_000_000_000 * 10**9
SOON = 1.0
"""Seconds. What is promised is a tenth of that; the machine may be busy."""


PLANTED = ("file=before", "large=" + "x" * LARGE, "sub/file=in sub")


@contextmanager
def warm(place: Path, source: Path) -> Iterator[CountedMount]:
    """A mount of SOURCE of which the kernel keeps what it is told."""
    with counted(place, f"{source}::/") as mount:
        assert wait_until(lambda: mount.of(lambda: os.stat(mount.top / "file"))["getattr"] == 0)
        yield mount


def seen(path: Path) -> tuple[int, int, int, int]:
    status = os.stat(path)
    return status.st_size, status.st_blocks, status.st_mtime_ns, status.st_ctime_ns


def unasked(top: Path) -> int:
    """What the daemon of TOP has written that was no reply: a notification is one system call."""
    answered: int = sum(status(top)["operations"].values())
    words = Path(f"/proc/{daemon_of(top)}/io").read_text().split()
    return int(words[words.index("syscw:") + 1]) - answered


def size_and_times_are_right_after_each_write(source: Path, top: Path) -> None:
    host, guest = source / "file", top / "file"
    os.utime(guest, ns=(LONG_AGO, LONG_AGO))
    with guest.open("ab", 0) as file:
        for _ in range(20):
            file.write(b"x" * 1000)
            assert seen(guest) == seen(host)
            assert os.fstat(file.fileno()).st_mtime_ns > LONG_AGO
        file.truncate(5)
        assert seen(guest) == seen(host)
    assert seen(guest) == seen(host)


def and_after_writing_to_a_mapping(source: Path, top: Path) -> None:
    host, guest = source / "file", top / "file"
    os.utime(guest, ns=(LONG_AGO, LONG_AGO))
    with guest.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[:1] = b"x"
        assert seen(guest) == seen(host)
        view.flush()
        assert seen(guest) == seen(host)
    assert seen(guest)[2] > LONG_AGO


def and_by_whoever_else_maps_it(source: Path, top: Path) -> None:
    """Who only writes may be answered for a while; not beside somebody who stores to a mapping."""
    host, guest = source / "file", top / "file"
    with guest.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view, guest.open("ab") as log:
        for letter in b"abc":
            os.utime(guest, ns=(LONG_AGO, LONG_AGO))
            assert os.fstat(log.fileno()).st_mtime_ns == LONG_AGO
            view[:1] = bytes([letter])
            view.flush()
            assert seen(guest) == seen(host)
            assert os.fstat(log.fileno()).st_mtime_ns > LONG_AGO


def after_writes_of_two_guests(source: Path, top: Path) -> None:
    host, guest = source / "file", top / "file"
    with guest.open("ab", 0) as one:
        for number in range(10):
            assert in_child(append_and_look, guest) == seen(host)
            assert seen(guest) == seen(host)
            one.write(b"y" * 10)
            assert seen(guest) == seen(host)
            os.truncate(guest, 100 + number)
            assert os.fstat(one.fileno()).st_size == 100 + number


def append_and_look(guest: Path) -> tuple[int, int, int, int]:
    with guest.open("ab", 0) as file:
        file.write(b"x" * 1000)
        return seen(guest)


def after_making_one(source: Path, top: Path) -> None:
    """What a guest makes and only then maps: it keeps what it was told when it made it."""
    guest = top / "new"
    with guest.open("w+b", 0) as file:
        file.write(b"x" * 10_000)
        assert seen(guest) == seen(source / "new")
    with guest.with_name("mapped").open("x+b", 0) as file:
        os.truncate(guest.with_name("mapped"), 8192)
        with mmap.mmap(file.fileno(), 0) as view:
            os.utime(file.fileno(), ns=(LONG_AGO, LONG_AGO))
            assert os.fstat(file.fileno()).st_mtime_ns == LONG_AGO
            view[:1] = b"x"
            view.flush()
            assert os.fstat(file.fileno()).st_mtime_ns > LONG_AGO


def access_times_after_each_read(source: Path, top: Path) -> None:
    host, guest = source / "file", top / "file"
    with guest.open("r+b", 0) as file:
        os.utime(guest, ns=(LONG_AGO, LONG_AGO))
        assert guest.stat().st_atime_ns == LONG_AGO
        assert os.pread(file.fileno(), 6, 0) == b"before"
        assert guest.stat().st_atime_ns == host.stat().st_atime_ns > LONG_AGO


def in_listings_too(source: Path, top: Path) -> None:
    with (top / "sub/file").open("ab", 0) as file:
        for _ in range(3):
            file.write(b"x" * 100)
            sizes = in_child(lambda: [e.stat().st_size for e in os.scandir(top / "sub")])
            assert sizes == [(source / "sub/file").stat().st_size]


def the_host_changes_what_a_guest_writes(source: Path, top: Path) -> None:
    """Its events look like those of the guest's own writes."""
    host, guest = source / "file", top / "file"
    with guest.open("r+b", 0) as file:
        file.write(b"guest")
        for number in range(1, 4):
            with host.open("ab") as other:
                other.write(b"host")
            assert os.fstat(file.fileno()).st_size == 6 + 4 * number
            host.chmod(0o600 + number)
            assert wait_until(lambda: guest.stat().st_mode == host.stat().st_mode, SOON)
        assert os.pread(file.fileno(), 100, 0) == b"gueste" + b"host" * 3
    host.write_text("a whole new content")
    assert wait_until(lambda: guest.read_text() == "a whole new content", SOON)
    assert wait_until(lambda: seen(guest) == seen(host), SOON)


def the_host_changes_what_a_guest_appends_to(source: Path, top: Path) -> None:
    """The kernel keeps what it knows of such a file, if briefly."""
    host, guest = source / "file", top / "file"
    with guest.open("ab", 0) as file, host.open("ab", 0) as other:
        for number in range(1, 6):
            file.write(b"guest")
            assert seen(guest) == seen(host)
            other.write(b"host")
            assert wait_until(lambda: guest.stat().st_size == host.stat().st_size, SOON)
            host.chmod(0o600 + number)
            assert wait_until(lambda: seen(guest) == seen(host), SOON)
            assert wait_until(lambda: guest.stat().st_mode == host.stat().st_mode, SOON)


def the_host_changes_what_a_guest_reads(source: Path, top: Path) -> None:
    host, guest = source / "large", top / "large"
    with guest.open("rb", 0) as file:
        assert file.read() == b"x" * LARGE
        host.write_text("after that")
        assert os.pread(file.fileno(), 100, 0) == b"after that"
        assert wait_until(lambda: os.fstat(file.fileno()).st_size == 10, SOON)
        assert wait_until(lambda: seen(guest) == seen(host), SOON)


def what_is_closed_is_kept_again(_source: Path, top: Path) -> None:
    mount = CountedMount(top)
    guest = top / "file"
    with guest.open("ab", 0) as file:
        file.write(b"x")
        for _ in range(2):
            time.sleep(0.1)
            assert mount.of(lambda: os.stat(guest))["getattr"] == 1
    time.sleep(0.1)  # until it does not keep any more what it was told last
    assert wait_until(lambda: mount.of(lambda: os.stat(guest))["getattr"] == 0)
    time.sleep(0.1)
    assert not mount.of(lambda: os.stat(guest))


USES = (
    size_and_times_are_right_after_each_write,
    and_after_writing_to_a_mapping,
    and_by_whoever_else_maps_it,
    after_writes_of_two_guests,
    after_making_one,
    access_times_after_each_read,
    in_listings_too,
    the_host_changes_what_a_guest_writes,
    the_host_changes_what_a_guest_appends_to,
    the_host_changes_what_a_guest_reads,
    what_is_closed_is_kept_again,
)


def test_what_is_written_past_the_daemon(tmp_path: Path) -> None:
    source = plant(tmp_path / "source", *PLANTED)
    for use in USES:
        plant(source / use.__name__, *PLANTED)
    with warm(tmp_path, source) as mount:
        for use in USES:
            use(source / use.__name__, mount.top / use.__name__)


def test_writing_causes_no_notifications(tmp_path: Path) -> None:
    source = plant(tmp_path / "source", *PLANTED)
    with warm(tmp_path, source) as mount:
        check_notifications(mount.top)


def check_notifications(top: Path) -> None:
    few = 4  # the answers to this test's own questions
    guest = top / "file"
    with guest.open("r+b", 0) as file:
        time.sleep(0.1)
        before = unasked(top)
        for _ in range(20):
            file.write(b"x" * 100)
            time.sleep(0.02)  # longer than events are gathered for
        time.sleep(0.1)
        assert unasked(top) - before <= few
    before = unasked(top)
    for _ in range(20):
        with guest.open("ab", 0) as file:
            file.write(b"x")
        time.sleep(0.02)
    time.sleep(0.1)
    assert unasked(top) - before <= few


TURNS = 20


def write_and_look(guest: Path, mode: str, looks: int) -> None:
    """Writes, and LOOKS at what is open after each of them."""
    with guest.open(mode, 0) as file:
        time.sleep(0.1)  # until the kernel has heard that it is to ask
        for _ in range(TURNS):
            file.write(b"x")
            for _ in range(looks):
                os.fstat(file.fileno())


def read_and_look(guest: Path, looks: int) -> None:
    """The same of reading, by a handle that others could map by; it is not open for long."""
    with guest.open("x+b", 0) as file:
        for _ in range(TURNS):
            os.pread(file.fileno(), 1, 0)
            for _ in range(looks):
                os.stat(guest)


def make_and_look(guest: Path) -> None:
    for number in range(TURNS):
        with guest.with_name(f"made{number}").open("x+b", 0) as file:
            os.fstat(file.fileno())


def test_how_often_the_kernel_asks(tmp_path: Path) -> None:
    """Once after each write, and not twice where nobody can have mapped the file."""
    source = plant(tmp_path / "source", *PLANTED)
    with warm(tmp_path, source) as mount:
        guest = mount.top / "file"
        asked = mount.of(lambda: write_and_look(guest, "ab", 1))
        assert TURNS <= asked["getattr"] <= TURNS + 2
        asked = mount.of(lambda: write_and_look(guest, "ab", 5))
        assert TURNS <= asked["getattr"] <= 2 * TURNS  # unless it is very slow
        asked = mount.of(lambda: write_and_look(guest, "r+b", 2))
        assert 2 * TURNS <= asked["getattr"] <= 2 * TURNS + 2
        asked = mount.of(lambda: read_and_look(mount.top / "new", 2))
        assert 2 * TURNS <= asked["getattr"] <= 2 * TURNS + 2
        asked = mount.of(lambda: make_and_look(guest))
        assert asked["getattr"] <= TURNS // 2


@pytest.mark.parametrize("cache", ["none", "0.01"])
def test_no_longer_than_the_mode_says(tmp_path: Path, cache: str) -> None:
    source = plant(tmp_path / "source", *PLANTED)
    with counted(tmp_path, f"{source}::/", cache=cache) as mount:
        guest = mount.top / "file"

        def look() -> None:
            with guest.open("ab", 0) as file:
                file.write(b"x")
                for _ in range(TURNS):
                    time.sleep(0.035)  # less than is usual, and more than the kernel rounds to
                    os.fstat(file.fileno())

        assert TURNS <= mount.of(look)["getattr"] <= TURNS + 2


def test_access_times(tmp_path: Path) -> None:
    """A writable preopen reads as the host does (relatime, and it is old), a read-only one spares
    them, also where several have it open."""
    source = plant(tmp_path / "source", *PLANTED)
    host = source / "large"
    os.utime(host, ns=(LONG_AGO, host.stat().st_mtime_ns))
    with counted(tmp_path, f"{source}::/") as mount:
        guest = mount.top / "large"
        assert guest.read_bytes() == b"x" * LARGE
        assert host.stat().st_atime_ns > LONG_AGO
        assert guest.stat().st_atime_ns == host.stat().st_atime_ns
    os.utime(host, ns=(LONG_AGO, host.stat().st_mtime_ns))
    with counted(tmp_path, f"{source}::/::ro") as reading:
        with (reading.top / "large").open("rb") as one, (reading.top / "large").open("rb") as two:
            assert one.read() == two.read() == b"x" * LARGE
            with mmap.mmap(one.fileno(), 0, prot=mmap.PROT_READ) as view:
                assert view[:5] == b"xxxxx"
        assert told(reading.top)["opened"] == 2
    assert host.stat().st_atime_ns == LONG_AGO

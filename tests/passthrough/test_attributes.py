"""Sizes and times are right at once, and nobody is told each time that something was written."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coherence.counted import CountedMount, counted
from passthrough.mounts import LARGE, status, told
from support.live import daemon_of
from support.planting import plant
from support.processes import in_child, wait_until

LONG_AGO = 1_000_000_000 * 10**9
SOON = 1.0
"""Seconds. What is promised is a tenth of that; the machine may be busy."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return plant(tmp_path / "source", "file=before", "large=" + "x" * LARGE, "sub/file=in sub")


@pytest.fixture
def mount(source: Path, tmp_path: Path) -> Iterator[CountedMount]:
    with counted(tmp_path, f"{source}::/") as mount:
        os.stat(mount.top / "file")
        assert wait_until(lambda: mount.of(lambda: os.stat(mount.top / "file"))["getattr"] == 0)
        yield mount


def seen(path: Path) -> tuple[int, int, int, int]:
    status = os.stat(path)
    return status.st_size, status.st_blocks, status.st_mtime_ns, status.st_ctime_ns


def test_size_and_times_are_right_after_each_write(mount: CountedMount, source: Path) -> None:
    host, guest = source / "file", mount.top / "file"
    os.utime(guest, ns=(LONG_AGO, LONG_AGO))
    with guest.open("ab", 0) as file:
        for _ in range(20):
            file.write(b"x" * 1000)
            assert seen(guest) == seen(host)
            assert os.fstat(file.fileno()).st_mtime_ns > LONG_AGO
        file.truncate(5)
        assert seen(guest) == seen(host)
    assert seen(guest) == seen(host)
    assert told(mount.top)["opened"] == 1


def test_and_after_writing_to_a_mapping(mount: CountedMount, source: Path) -> None:
    host, guest = source / "file", mount.top / "file"
    os.utime(guest, ns=(LONG_AGO, LONG_AGO))
    with guest.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[:1] = b"x"
        assert seen(guest) == seen(host)
        view.flush()
        assert seen(guest) == seen(host)
    assert seen(guest)[2] > LONG_AGO


def test_in_listings_too(mount: CountedMount, source: Path) -> None:
    with (mount.top / "sub/file").open("ab", 0) as file:
        for _ in range(3):
            file.write(b"x" * 100)
            sizes = in_child(lambda: [e.stat().st_size for e in os.scandir(mount.top / "sub")])
            assert sizes == [(source / "sub/file").stat().st_size]


def test_the_host_changes_what_a_guest_writes(mount: CountedMount, source: Path) -> None:
    """Its events look like those of the guest's own writes."""
    host, guest = source / "file", mount.top / "file"
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


def test_the_host_changes_what_a_guest_reads(mount: CountedMount, source: Path) -> None:
    host, guest = source / "large", mount.top / "large"
    with guest.open("rb", 0) as file:
        assert file.read() == b"x" * LARGE
        host.write_text("after that")
        assert os.pread(file.fileno(), 100, 0) == b"after that"
        assert wait_until(lambda: os.fstat(file.fileno()).st_size == 10, SOON)
        assert wait_until(lambda: seen(guest) == seen(host), SOON)


def unasked(top: Path) -> int:
    """What the daemon of TOP has written that was no reply: a notification is one system call."""
    answered: int = sum(status(top)["operations"].values())
    words = Path(f"/proc/{daemon_of(top)}/io").read_text().split()
    return int(words[words.index("syscw:") + 1]) - answered


def test_writing_causes_no_notifications(mount: CountedMount) -> None:
    top, few = mount.top, 4  # the answers to this test's own questions
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


def test_what_is_closed_is_kept_again(mount: CountedMount) -> None:
    guest = mount.top / "file"
    with guest.open("ab", 0) as file:
        file.write(b"x")
        assert mount.of(lambda: os.stat(guest))["getattr"] == 1
        assert mount.of(lambda: os.stat(guest))["getattr"] == 1
    assert wait_until(lambda: mount.of(lambda: os.stat(guest))["getattr"] == 0)
    time.sleep(0.1)
    assert not mount.of(lambda: os.stat(guest))


def test_access_times(source: Path, mount: CountedMount, tmp_path: Path) -> None:
    """A writable preopen reads as the host does (relatime, and it is old), a read-only one spares
    them, also where several have it open."""
    host, guest = source / "large", mount.top / "large"
    os.utime(host, ns=(LONG_AGO, host.stat().st_mtime_ns))
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

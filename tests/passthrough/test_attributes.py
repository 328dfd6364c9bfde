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
        assert mount.of(lambda: os.stat(guest))["getattr"] == 1
        assert mount.of(lambda: os.stat(guest))["getattr"] == 1
    assert wait_until(lambda: mount.of(lambda: os.stat(guest))["getattr"] == 0)
    time.sleep(0.1)
    assert not mount.of(lambda: os.stat(guest))


USES = (
    size_and_times_are_right_after_each_write,
    and_after_writing_to_a_mapping,
    in_listings_too,
    the_host_changes_what_a_guest_writes,
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

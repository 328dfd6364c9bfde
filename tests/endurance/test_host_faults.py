"""Faults of the host below: a full disk, a read-only remount, sources that go away."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aliases.private_mounts import in_private_mounts
from support.live import daemon_of
from support.loop_disk import ext4
from support.mounting import mounted
from support.planting import plant
from support.processes import has_ended, in_child, outcome

pytestmark = pytest.mark.usefixtures("data_way")

_MS_RDONLY, _MS_REMOUNT = 1, 32


@contextmanager
def tmpfs(place: Path, options: str) -> Iterator[Path]:
    """A file system of its own on PLACE; in a mount namespace that nobody else sees."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def remount(place: Path, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_ulong(_MS_REMOUNT | flags)
    assert libc.mount(None, bytes(place), None, number, None) == 0, os.strerror(ctypes.get_errno())


def fill(path: Path) -> bytes:
    """Write until there is no room; what was acknowledged."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    taken = bytearray()
    try:
        for number in range(100_000):
            piece = b"%07d\n" % number * 1500
            try:
                taken += piece[: os.write(fd, piece)]
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                break
        os.fsync(fd)
    finally:
        os.close(fd)
    return bytes(taken)


def check_full_disk(place: Path) -> None:
    with (
        tmpfs(place / "source", "size=3m,nr_inodes=20") as source,
        mounted(place, f"{source}::/") as top,
    ):
        (top / "before").write_bytes(b"before")
        taken = in_child(fill, top / "file")
        assert len(taken) > 2_000_000
        assert (source / "file").read_bytes() == taken == (top / "file").read_bytes()
        in_child(os.rename, top / "file", top / "moved")
        (top / "before").write_bytes(b"")
        os.truncate(top / "moved", 1_000_000)
        assert fill(top / "again") == (source / "again").read_bytes()
        os.unlink(top / "moved")
        (top / "after").write_bytes(b"there is room again")
        assert (source / "after").read_bytes() == b"there is room again"
        made = [outcome(lambda n=n: (top / f"n{n}").touch()) for n in range(30)]
        assert made[0] == "ok" and made[-1] == "ENOSPC"
        for call in (
            lambda: os.mkdir(top / "new"),
            lambda: os.symlink("x", top / "new"),
            lambda: os.mkfifo(top / "new"),
        ):
            assert outcome(call) == "ENOSPC"
        assert sorted(os.listdir(top)) == sorted(os.listdir(source))


def check_removed_files_free_their_room(place: Path) -> None:
    """At once, although the kernel tells the daemon later; and a guest may still look at one."""
    with (
        tmpfs(place / "source", "size=1m,nr_inodes=4") as source,
        mounted(place, f"{source}::/") as top,
    ):
        for turn in range(60):
            fill(top / "file")
            os.unlink(top / "file")
            (top / "next").write_bytes(b"%d" % turn * 1000)
            os.rename(top / "next", top / "last")
            os.mkdir(top / "dir")
            os.rmdir(top / "dir")
        (top / "kept").write_bytes(b"kept")
        kept = os.open(top / "kept", os.O_PATH)
        os.unlink(top / "kept")
        fill(top / "file")
        assert outcome(lambda: (top / "next").touch()) == "ENOSPC"
        assert os.stat(f"/proc/self/fd/{kept}").st_size == 4
        os.close(kept)


def test_removed_files_free_their_room(tmp_path: Path) -> None:
    in_private_mounts(lambda: check_removed_files_free_their_room(tmp_path))


def test_a_full_disk(tmp_path: Path) -> None:
    in_private_mounts(lambda: check_full_disk(tmp_path))


def test_what_the_host_reserves_is_not_for_guests(tmp_path: Path) -> None:
    """CAP_SYS_RESOURCE lifts quotas, and taking on a caller's ids would not take it away."""
    with mounted(tmp_path, f"{plant(tmp_path / 'a')}::/") as top:
        status = Path(f"/proc/{daemon_of(top)}/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    assert not int(effective.split()[1], 16) >> 24 & 1


def give_all_links(source: Path) -> bool:
    """Give `file` every name it can have, in `sub`; whether there is an end to them."""
    plant(source, "file=x", "sub/")
    for number in range(66_000):
        try:
            os.link(source / "file", source / f"sub/{number}")
        except OSError as error:
            return error.errno == errno.EMLINK
    return False


def check_no_more_links(place: Path, source: Path) -> None:
    with mounted(place, f"{source}::/") as top:
        most = os.stat(top / "file").st_nlink
        assert outcome(os.link, top / "file", top / "new") == "EMLINK"
        os.unlink(top / "sub/7")
        os.link(top / "file", top / "new")
        assert os.stat(top / "new").st_nlink == most


def check_links_of_ext4(place: Path) -> None:
    with ext4(place, mib=64) as source:
        assert give_all_links(source)
        check_no_more_links(place, source)


def test_too_many_links(tmp_path: Path) -> None:
    """ext4 gives a file 65,000 names; where temporary files lie on what gives more, one is made."""
    source = tmp_path / "source"
    if give_all_links(source):
        check_no_more_links(tmp_path, source)
    else:
        in_private_mounts(lambda: check_links_of_ext4(tmp_path))
    shutil.rmtree(source)  # pytest would keep it for a while


@pytest.mark.parametrize("call", [os.fsync, os.fdatasync], ids=["fsync", "fdatasync"])
def test_syncing_reaches_the_hosts_kernel(tmp_path: Path, call: Callable[[int], None]) -> None:
    """Of a file and of a directory, as strace sees it, before the guest goes on."""
    source = plant(tmp_path / "source", "file=x", "sub/")
    trace = tmp_path / "trace"
    with mounted(tmp_path, f"{source}::/") as top:
        words = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync", "-o", str(trace)]
        tracer = subprocess.Popen([*words, "-p", str(daemon_of(top))], stderr=subprocess.PIPE)
        assert tracer.stderr is not None and b"attached" in tracer.stderr.readline()
        for name, flags in (("file", os.O_RDWR), ("sub", os.O_RDONLY)):
            fd = os.open(top / name, flags)
            in_child(call, fd)
            os.close(fd)
            seen = [line for line in trace.read_text().splitlines() if f"{source}/{name}>" in line]
            assert seen and f" {call.__name__}(" in seen[0], trace.read_text()
        tracer.terminate()
        tracer.communicate(timeout=10)


CHANGES: dict[str, Callable[[Path], object]] = {
    "create": lambda top: (top / "new").touch(),
    "open": lambda top: os.open(top / "file", os.O_WRONLY),
    "mkdir": lambda top: os.mkdir(top / "new"),
    "symlink": lambda top: os.symlink("x", top / "new"),
    "link": lambda top: os.link(top / "file", top / "new"),
    "rename": lambda top: os.rename(top / "file", top / "new"),
    "unlink": lambda top: os.unlink(top / "file"),
    "rmdir": lambda top: os.rmdir(top / "sub"),
    "chmod": lambda top: os.chmod(top / "file", 0o600),
    "chown": lambda top: os.chown(top / "file", 1, 1),
    "utime": lambda top: os.utime(top / "file"),
    "truncate": lambda top: os.truncate(top / "file", 1),
    "setxattr": lambda top: os.setxattr(top / "file", b"user.x", b"x"),
}


def check_read_only_remount(place: Path) -> None:
    with (
        tmpfs(place / "source", "size=1m") as source,
        mounted(place, f"{plant(source, 'file=kept', 'sub/')}::/") as top,
    ):
        assert (top / "file").read_text() == "kept"
        remount(source, _MS_RDONLY)
        for name, call in CHANGES.items():
            assert in_child(outcome, call, top) == outcome(lambda c=call: c(source)) == "EROFS", (
                name
            )
        assert (top / "file").read_text() == "kept"
        remount(source, 0)
        (top / "file").write_text("written again")
        assert (source / "file").read_text() == "written again"


def test_a_read_only_remount_below(tmp_path: Path) -> None:
    in_private_mounts(lambda: check_read_only_remount(tmp_path))


GONE = ("ENOENT", "ESTALE")

USES: dict[str, Callable[[Path], object]] = {
    "stat": lambda at: os.stat(at / "file"),
    "read": lambda at: (at / "file").read_text(),
    "create": lambda at: (at / "new").touch(),
    "mkdir": lambda at: os.mkdir(at / "new"),
    "symlink": lambda at: os.symlink("x", at / "new"),
    "unlink": lambda at: os.unlink(at / "file"),
    "rename": lambda at: os.rename(at / "file", at / "new"),
    "rmdir": lambda at: os.rmdir(at / "sub"),
}


@pytest.mark.parametrize("cache", ["coherent", "none"])
def test_a_source_is_deleted(tmp_path: Path, cache: str) -> None:
    doomed, other = plant(tmp_path / "a", "file=a", "sub/x=x"), plant(tmp_path / "b", "file=b")
    dirs = (f"{doomed}::/", f"{other}::/nest", f"{doomed}::/twice/deep")
    with mounted(tmp_path, *dirs, options=["--cache", cache]) as top:
        daemon = daemon_of(top)
        fd = os.open(top / "file", os.O_RDWR)
        assert (top / "sub/x").read_text() == "x"
        shutil.rmtree(doomed)
        for place in (top, top / "twice/deep"):
            for name, call in USES.items():
                assert in_child(outcome, call, place) in GONE, name
            assert set(in_child(os.listdir, place)) <= {"nest", "twice"}
            assert in_child(outcome, os.stat, place) == "ok"
        assert os.write(fd, b"still") == 5 and os.pread(fd, 5, 0) == b"still"
        os.close(fd)
        assert (top / "nest/file").read_text() == "b"
        assert not has_ended(daemon)


@pytest.mark.parametrize("cache", ["coherent", "none"])
def test_a_source_is_renamed(tmp_path: Path, cache: str) -> None:
    """It is known by its inode: everything goes on where it now is."""
    source = plant(tmp_path / "a", "file=a", "sub/x=x")
    with mounted(tmp_path, f"{source}::/", options=["--cache", cache]) as top:
        source.rename(tmp_path / "elsewhere")
        plant(source, "file=an impostor")
        assert in_child((top / "file").read_text) == "a"
        (top / "sub/new").write_text("new")
        os.rename(top / "sub/x", top / "y")
        assert (tmp_path / "elsewhere/sub/new").read_text() == "new"
        assert (tmp_path / "elsewhere/y").read_text() == "x"
        assert os.listdir(source) == ["file"]


@pytest.mark.parametrize("cache", ["coherent", "none"])
def test_a_directory_in_a_source_is_replaced_over_and_over(tmp_path: Path, cache: str) -> None:
    source = plant(tmp_path / "a", "sub/file=0")
    with mounted(tmp_path, f"{source}::/", options=["--cache", cache]) as top:
        for turn in range(1, 20):
            assert in_child(outcome, lambda: os.stat(top / "sub/file")) in ("ok", *GONE)
            kept = os.open(top / "sub", os.O_RDONLY) if turn % 2 else -1
            plant(source / "next", f"file={turn}")
            (source / "sub").rename(source / f"old{turn}")
            (source / "next").rename(source / "sub")
            if turn % 3 == 0:
                shutil.rmtree(source / f"old{turn}")
            if kept >= 0:
                seen = outcome(lambda fd=kept: os.listdir(fd))
                assert seen in ("ok", *GONE)
                os.close(kept)
        time.sleep(0.12)
        assert in_child((top / "sub/file").read_text) == "19"

"""A defect in one request: EIO for that request, a traceback in the log, and everything goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import sabotage
from support.live import make_dirs, make_target
from support.mounting import is_mounted
from support.processes import attempt, in_child, outcome


@contextmanager
def broken(place: Path, owner: str, method: str, way: str) -> Iterator[tuple[Path, Path]]:
    """A mount whose daemon has METHOD of the core class OWNER broken, with data going one WAY;
    target and log."""
    (source,), target = make_dirs(place, "source"), make_target(place)
    (source / "sub").mkdir()
    (source / "link").symlink_to("file")
    log = place / "log"
    module = f"overlayd.core.{owner.lower()}"
    words = [sys.executable, sabotage.__file__, module, owner, method, "--"]
    words += ["mount", "--cache", "none", "--passthrough", way, "--log-file", str(log)]
    words += ["--dir", f"{source}::/"]
    done = subprocess.run(
        [*words, str(target)], capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    yield target, log
    assert is_mounted(target)
    assert attempt("umount", str(target)).returncode == 0


Attempt = Callable[[Path], object]


def write(path: Path) -> int:
    """One write, its error not lost in a buffer."""
    fd = os.open(path, os.O_RDWR)
    try:
        return os.write(fd, b"x")
    finally:
        os.close(fd)


def sync(path: Path) -> None:
    """One fsync."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


THROUGH_US = "off"
"""What reads and writes would not reach the daemon otherwise."""

BROKEN: list[tuple[str, str, Attempt]] = [
    ("Names", "lookup", lambda top: os.stat(top / "trap")),
    ("Names", "mkdir", lambda top: os.mkdir(top / "trap")),
    ("Names", "mknod", lambda top: os.mkfifo(top / "trap")),
    ("Names", "symlink", lambda top: os.symlink("x", top / "trap")),
    ("Names", "link", lambda top: os.link(top / "file", top / "trap")),
    ("Names", "unlink", lambda top: os.unlink(top / "file")),
    ("Names", "rmdir", lambda top: os.rmdir(top / "sub")),
    ("Names", "rename", lambda top: os.rename(top / "file", top / "trap")),
    ("Names", "opendir", lambda top: os.listdir(top)),
    ("Listings", "entries", lambda top: os.listdir(top)),
    ("Attributes", "readlink", lambda top: os.readlink(top / "link")),
    ("Attributes", "setattr", lambda top: os.chmod(top / "file", 0o600)),
    ("Attributes", "access", lambda top: os.chdir(top / "sub")),
    ("Attributes", "statfs", lambda top: os.statvfs(top)),
    ("Attributes", "listxattr", lambda top: os.listxattr(top / "file")),
    ("Attributes", "setxattr", lambda top: os.setxattr(top / "file", b"user.x", b"")),
    ("Data", "open", lambda top: os.open(top / "file", os.O_RDONLY)),
    ("Data", "create", lambda top: os.open(top / "trap", os.O_CREAT | os.O_WRONLY)),
    ("Data", "write", lambda top: write(top / "file")),
    ("Data", "origin", lambda top: (top / "file").read_text()),
    ("Data", "origin_to_sync", lambda top: sync(top / "file")),
    ("Attributes", "getxattr", lambda top: os.getxattr(top / "file", b"user.x")),
]


CASES = [
    pytest.param(owner, method, way, call, id=f"{owner}.{method}-{way}")
    for owner, method, call in BROKEN
    for way in (("auto", THROUGH_US) if method in ("open", "create") else (THROUGH_US,))
]


@pytest.mark.parametrize(("owner", "method", "way", "call"), CASES)
def test_an_unexpected_exception_is_eio_for_that_request_alone(
    tmp_path: Path, owner: str, method: str, way: str, call: Attempt
) -> None:
    with broken(tmp_path, owner, method, way) as (top, log):
        for _ in range(2):
            assert in_child(lambda: outcome(lambda: call(top))) == "EIO"
        assert in_child(lambda: os.path.exists(top / "sub"))
    text = log.read_text()
    assert "Traceback (most recent call last)" in text
    assert "KeyError: 'sabotage'" in text and "answered EIO" in text


@pytest.mark.alone
def test_an_exception_in_forget_does_not_end_the_mount(tmp_path: Path) -> None:
    """pyfuse3 itself catches nothing there at all."""
    with broken(tmp_path, "Names", "forget", THROUGH_US) as (top, log):
        assert in_child(lambda: (top / "file").read_text()) == "source"
        Path("/proc/sys/vm/drop_caches").write_text("2")  # the kernel forgets what it does not use
        assert in_child(lambda: (top / "file").read_text()) == "source"
        in_child(lambda: os.unlink(top / "file"))  # and what is gone
        assert in_child(lambda: os.listdir(top / "sub")) == []
    assert "forget: node" in log.read_text()


@pytest.mark.parametrize("way", ["auto", "off"])
def test_an_exception_in_release_does_not_end_the_mount(tmp_path: Path, way: str) -> None:
    with broken(tmp_path, "Data", "release", way) as (top, log):
        for _ in range(3):
            assert in_child(lambda: write(top / "file")) == 1
    assert "release: unexpected" in log.read_text()

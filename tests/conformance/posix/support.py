"""What the behaviours of this folder share: users, times, kinds of files, long paths."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from conformance.case import Case, answer, write

ROOT = (0, 0)
ALICE = (1501, 1601)
BOB = (1502, 1602)
CAROL = (1503, 1601)
"""Carol's group is Alice's."""
USERS = (ALICE, BOB, CAROL)
SHARED_GROUP = 1700

TICK_SECONDS = 0.012
"""Longer than a tick of the clock that time stamps are taken from."""

LONGEST_NAME = "n" * 255
LONGEST_PATH = 4095

MAKERS: dict[str, Callable[[str], None]] = {
    "file": lambda path: write(path),
    "directory": os.mkdir,
    "fifo": os.mkfifo,
    "symlink": lambda path: os.symlink("target", path),
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o644),
    "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o644, os.makedev(1, 3)),
}
"""How each kind of object is made."""


@contextmanager
def times(case: Case, moved: Mapping[str, str]) -> Iterator[None]:
    """What happens within moves exactly these times: letters `a`, `m` and `c` by path.

    An atime may move unasked, where a directory is read: it is looked at only where it must move.
    """
    handles = {path: os.open(path, os.O_PATH | os.O_NOFOLLOW) for path in moved}
    try:
        before = {path: os.fstat(fd) for path, fd in handles.items()}
        time.sleep(TICK_SECONDS)
        yield
        for path, fd in handles.items():
            got, wanted = _moved(before[path], os.fstat(fd)), moved[path]
            case.same(got if "a" in wanted else got.replace("a", ""), wanted, f"times of {path}")
    finally:
        for fd in handles.values():
            os.close(fd)


def _moved(before: os.stat_result, after: os.stat_result) -> str:
    names = {"a": "st_atime_ns", "m": "st_mtime_ns", "c": "st_ctime_ns"}
    return "".join(
        letter for letter, name in names.items() if getattr(before, name) != getattr(after, name)
    )


@contextmanager
def untouched(case: Case, *paths: str) -> Iterator[None]:
    """What happens within moves no mtime and no ctime of PATHS and adds or removes no name here."""
    names = sorted(os.listdir("."))
    with times(case, dict.fromkeys((".", *paths), "")):
        yield
    case.same(sorted(os.listdir(".")), names, "the listing after what was refused")


def links_of(*paths: str) -> tuple[int, ...]:
    return tuple(os.lstat(path).st_nlink for path in paths)


def owner_of(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_uid, status.st_gid


def give(path: str, owner: tuple[int, int], mode: int | None = None) -> None:
    """Set owner and mode, in the order that keeps set-id bits."""
    os.lchown(path, *owner)
    if mode is not None:
        os.chmod(path, mode)


def remove(path: str) -> None:
    """Remove what is at PATH, if anything."""
    if answer(os.unlink, path) == errno.EISDIR:
        os.rmdir(path)


def deep_directory() -> str:
    """A chain of new directories; a name of four bytes in the last makes a path of 4095 bytes."""
    path = "."
    for length in (255,) * 15 + (248,):
        path = f"{path}/{'d' * length}"
        os.mkdir(path)
    return path + "/"


def every(case: Case, number: int, calls: Iterable[Callable[[], object]]) -> None:
    """Each of CALLS fails with NUMBER."""
    for call in calls:
        case.refused(number, call)


@contextmanager
def running(path: str) -> Iterator[None]:
    """A program, copied to PATH, while it runs, and has all that it needs to wait for its input."""
    cat = shutil.which("cat")
    assert cat is not None
    shutil.copyfile(cat, path)
    os.chmod(path, 0o755)
    with subprocess.Popen(
        [os.path.abspath(path)], bufsize=0, stdout=subprocess.PIPE, stdin=subprocess.PIPE
    ) as process:
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(b"x")
            assert process.stdout.read(1) == b"x"
            yield
        finally:
            process.kill()

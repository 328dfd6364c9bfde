"""Every way to change a file or a directory, each as a guest would go about it."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from overlayd.host import libc

FS_IOC_SETFLAGS = 0x40086602
EXCHANGE = 2

FileOperation = Callable[[str], None]
"""Takes a path, or what stands for an open descriptor in /proc/self/fd."""


def opened(flags: int) -> FileOperation:
    return lambda path: os.close(os.open(path, flags))


def rename(old: Path, new: Path, flags: int = 0) -> None:
    libc.renameat2(libc.AT_FDCWD, bytes(old), libc.AT_FDCWD, bytes(new), flags)


def exchange(one: Path, other: Path) -> None:
    rename(one, other, EXCHANGE)


def change_owner(path: str | int) -> None:
    """To what the caller may: root gives away, anyone else names itself again."""
    new = 4242 if os.geteuid() == 0 else os.geteuid()
    os.chown(path, new, new)


def set_flags(path: str) -> None:
    """chattr(1); no FUSE file system built on pyfuse3 offers it."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, FS_IOC_SETFLAGS, (0x10).to_bytes(8, "little"))
    finally:
        os.close(fd)


ON_FILES: Mapping[str, FileOperation] = {
    "open O_WRONLY": opened(os.O_WRONLY),
    "open O_RDWR": opened(os.O_RDWR),
    "open O_RDONLY|O_TRUNC": opened(os.O_RDONLY | os.O_TRUNC),
    "open O_WRONLY|O_APPEND": opened(os.O_WRONLY | os.O_APPEND),
    "open O_RDWR|O_CREAT": opened(os.O_RDWR | os.O_CREAT),
    "open O_WRONLY|O_CREAT|O_TRUNC": opened(os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    "truncate to nothing": lambda path: os.truncate(path, 0),
    "truncate to more": lambda path: os.truncate(path, 9999),
    "chmod": lambda path: os.chmod(path, 0o600),
    "chown": change_owner,
    "utimens": lambda path: os.utime(path, (1, 1)),
    "utimens to now": lambda path: os.utime(path),
    "setxattr": lambda path: os.setxattr(path, "user.new", b"x"),
    "setxattr of another value": lambda path: os.setxattr(path, "user.kept", b"x"),
    "removexattr": lambda path: os.removexattr(path, "user.kept"),
}
"""What changes an inode by any of its names; each is EROFS for one that is read-only."""

ON_HANDLES: Mapping[str, Callable[[int], None]] = {
    "fchmod": lambda fd: os.fchmod(fd, 0o600),
    "fchown": change_owner,
    "futimens": lambda fd: os.utime(fd, (1, 1)),
    "fsetxattr": lambda fd: os.setxattr(fd, "user.new", b"x"),
    "fremovexattr": lambda fd: os.removexattr(fd, "user.kept"),
}
"""What changes an inode by a descriptor that was opened for reading."""


def ways_into(directory: Path) -> Mapping[str, Callable[[], None]]:
    """What changes DIRECTORY, which holds `f`, `d/` and the empty `d/e/`, by its path."""
    fresh, file, empty = directory / "new", directory / "f", directory / "d/e"
    return {
        "create": lambda: os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL)),
        "mkdir": lambda: os.mkdir(fresh),
        "symlink": lambda: os.symlink("f", fresh),
        "mknod": lambda: os.mknod(fresh, stat.S_IFIFO | 0o644),
        "link within": lambda: os.link(file, fresh),
        "unlink": lambda: os.unlink(file),
        "unlink of a link": lambda: os.unlink(directory / "l"),
        "rmdir": lambda: os.rmdir(empty),
        "rename within": lambda: rename(file, fresh),
        "rename over": lambda: rename(file, directory / "d/f"),
        "rename of a directory within": lambda: rename(empty, fresh),
        "exchange within": lambda: exchange(file, directory / "d/f"),
        "chmod of the directory": lambda: os.chmod(directory, 0o700),
        "chown of the directory": lambda: change_owner(str(directory)),
        "utimens of the directory": lambda: os.utime(directory, (1, 1)),
        "setxattr of the directory": lambda: os.setxattr(directory, "user.new", b"x"),
        "removexattr of the directory": lambda: os.removexattr(directory, "user.kept"),
        "create by handle": lambda: _by_handle(
            directory, lambda fd: os.close(os.open("new", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
        ),
        "mkdir by handle": lambda: _by_handle(directory, lambda fd: os.mkdir("new", dir_fd=fd)),
        "unlink by handle": lambda: _by_handle(directory, lambda fd: os.unlink("f", dir_fd=fd)),
        "fchmod of the directory": lambda: _by_handle(directory, lambda fd: os.fchmod(fd, 0o700)),
        "futimens of the directory": lambda: _by_handle(directory, lambda fd: os.utime(fd, (1, 1))),
    }


def ways_across(directory: Path, writable: Path) -> Mapping[str, Callable[[], None]]:
    """What moves names between read-only DIRECTORY and WRITABLE, or DIRECTORY itself."""
    mine, other = writable / "own", writable / "other"
    return {
        "link in": lambda: os.link(mine, directory / "new"),
        "link out": lambda: os.link(directory / "f", writable / "new"),
        "rename in": lambda: rename(mine, directory / "new"),
        "rename in, over": lambda: rename(mine, directory / "f"),
        "rename out": lambda: rename(directory / "f", writable / "new"),
        "rename out, of a directory": lambda: rename(directory / "d", writable / "new"),
        "exchange across": lambda: exchange(directory / "f", mine),
        "exchange of directories across": lambda: exchange(directory / "d", other),
    }


def ways_to_move(directory: Path, writable: Path) -> Mapping[str, Callable[[], None]]:
    """What moves DIRECTORY itself, which lies in WRITABLE and is no mount point."""
    other = writable / "other"
    return {
        "rename of the directory itself": lambda: rename(directory, writable / "new"),
        "rename into its neighbour": lambda: rename(directory, other / "new"),
        "rename over the directory itself": lambda: rename(other, directory),
        "exchange of the directory itself": lambda: exchange(directory, other),
        "exchange with the directory itself": lambda: exchange(other, directory),
        "rmdir of the directory itself": lambda: os.rmdir(directory),
    }


def _by_handle(directory: Path, call: Callable[[int], None]) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        call(fd)
    finally:
        os.close(fd)


def undo(new: Path) -> None:
    """Take away what an operation made that should have failed, so that the next one is told."""
    with suppress(OSError):
        os.unlink(new)

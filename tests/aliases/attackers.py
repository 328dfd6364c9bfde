"""What attackers do, each in a process of its own.

Namers change names, in a namespace or behind its back; they never write to what they find, since
on the host that might be the very thing that must not change. Writers try to change whatever
their names lead to, through the namespace only, and the way a sandbox resolves paths (openat2(2),
RESOLVE_BENEATH).
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from overlayd.host import libc

NAMES = [f"n{number}" for number in range(8)]
WORKPLACES = ("w/a", "w/b", "w/c", "p/out")
"""Writable directories of the namespace in which names change."""
READ_ONLY = ("ro/f0", "ro/d/f1", "p/f2", "w/sealed/f3")

_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS, _RESOLVE_BENEATH = 0x02, 0x08
_EXCHANGE = 2
_FLAGS = (
    os.O_WRONLY,
    os.O_RDWR,
    os.O_RDONLY | os.O_TRUNC,
    os.O_WRONLY | os.O_APPEND,
    os.O_RDWR | os.O_CREAT,
    os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
)
_libc = ctypes.CDLL(None, use_errno=True)


def openat2(directory: int, path: str, flags: int) -> int:
    """Open PATH below DIRECTORY, never anything outside it."""
    mode = 0o644 if flags & os.O_CREAT else 0
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    fd = int(_libc.syscall(_SYS_OPENAT2, directory, path.encode(), how, ctypes.c_size_t(len(how))))
    if fd < 0:
        raise OSError(ctypes.get_errno(), path)
    return fd


class Namer:
    """Renames, swaps, links, removes and makes names in directories, by descriptor and one name."""

    def __init__(self, chance: random.Random, directories: list[Path], sources: list[Path]) -> None:
        """SOURCES, the read-only files, are what is hard-linked."""
        self._chance = chance
        self._directories = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in directories]
        self._sources = sources
        self._targets = [
            *("..", "../..", "../../..", ".", "n1", "n2/n3", "../b", "/ro/f0", "/canary/f"),
            *("../../canary/f", "/w/sealed/f3", "/p/out", "/", "../../../../../../../canary/f"),
            *(str(path) for path in sources),
        ]

    def steps(self, exchanging: bool) -> list[Callable[[], None]]:
        """What is done at random; mostly exchanges where EXCHANGING."""
        others = [
            *(self.rename, self.exchange, self.replace_by_link, self.link, self.link_here),
            *(self.create, self.make_directory, self.unlink, self.remove_directory),
        ]
        return others + [self.exchange] * (40 if exchanging else 0)

    def _one(self) -> tuple[int, str]:
        return self._chance.choice(self._directories), self._chance.choice(NAMES)

    def _move(self, flags: int) -> None:
        (one, old), (other, new) = self._one(), self._one()
        libc.renameat2(one, old.encode(), other, new.encode(), flags)

    def rename(self) -> None:
        self._move(0)

    def exchange(self) -> None:
        self._move(_EXCHANGE)

    def replace_by_link(self) -> None:
        directory, name = self._one()
        fresh = f"t{os.getpid()}"
        os.symlink(self._chance.choice(self._targets), fresh, dir_fd=directory)
        try:
            os.rename(fresh, name, src_dir_fd=directory, dst_dir_fd=directory)
        except OSError:
            os.unlink(fresh, dir_fd=directory)
            raise

    def link(self) -> None:
        directory, name = self._one()
        os.link(self._chance.choice(self._sources), name, dst_dir_fd=directory)

    def link_here(self) -> None:
        (one, old), (other, new) = self._one(), self._one()
        os.link(old, new, src_dir_fd=one, dst_dir_fd=other, follow_symlinks=False)

    def create(self) -> None:
        directory, name = self._one()
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=directory))

    def make_directory(self) -> None:
        directory, name = self._one()
        os.mkdir(name, dir_fd=directory)

    def unlink(self) -> None:
        directory, name = self._one()
        os.unlink(name, dir_fd=directory)

    def remove_directory(self) -> None:
        directory, name = self._one()
        os.rmdir(name, dir_fd=directory)


class Writer:
    """Changes whatever it can reach through the namespace."""

    def __init__(self, chance: random.Random, target: Path) -> None:
        self._chance = chance
        self._top = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        self._held: list[int] = []

    def steps(self) -> list[Callable[[], None]]:
        """What is done at random."""
        return [*(self.write,) * 4, self.truncate, *(self.change,) * 3, self.hold, self.use_held]

    def _path(self) -> str:
        names = self._chance.choices(NAMES, k=self._chance.choice((1, 1, 1, 2, 3)))
        path = "/".join((self._chance.choice(WORKPLACES), *names))
        return self._chance.choice((path, path, path, self._chance.choice(READ_ONLY)))

    def write(self) -> None:
        fd = openat2(self._top, self._path(), self._chance.choice(_FLAGS))
        try:
            os.write(fd, b"changed by the attacker")
            os.ftruncate(fd, 5)
        finally:
            os.close(fd)

    def truncate(self) -> None:
        self._by_inode(lambda name: os.truncate(name, 3))

    def change(self) -> None:
        self._by_inode(self._chance.choice(_CHANGES))

    def _by_inode(self, change: Callable[[str], None]) -> None:
        fd = openat2(self._top, self._path(), os.O_PATH)
        try:
            change(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)

    def hold(self) -> None:
        """Open something for reading, to be used when its name has long gone."""
        if len(self._held) > 16:
            os.close(self._held.pop(self._chance.randrange(len(self._held))))
        self._held.append(openat2(self._top, self._path(), os.O_RDONLY | os.O_NONBLOCK))

    def use_held(self) -> None:
        if self._held:
            name = f"/proc/self/fd/{self._chance.choice(self._held)}"
            self._chance.choice((*_CHANGES, _reopen))(name)


def _reopen(name: str) -> None:
    fd = os.open(name, os.O_WRONLY)
    try:
        os.write(fd, b"changed by handle")
    finally:
        os.close(fd)


_CHANGES: tuple[Callable[[str], None], ...] = (
    lambda name: os.chmod(name, 0o750),  # of a workplace too: it must stay usable
    lambda name: os.utime(name, (1, 1)),
    lambda name: os.setxattr(name, "user.attack", b"x"),
    lambda name: os.removexattr(name, "user.kept"),
    lambda name: os.chown(name, os.geteuid(), os.getegid()),
)


def rage(steps: list[Callable[[], None]], chance: random.Random, seconds: float) -> Counter[str]:
    """Do STEPS at random for SECONDS; how often each went which way."""
    results: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        step = chance.choice(steps)
        try:
            step()
            result = "ok"
        except OSError as error:
            result = errno.errorcode.get(error.errno or 0, "?")
        results[f"{step.__name__} {result}"] += 1
    return results


def steps_of(
    role: str, chance: random.Random, place: Path, target: Path, *, exchanging: bool
) -> list[Callable[[], None]]:
    """What `host`, `guest` or `writer` does; PLACE holds the sources, TARGET is the mount."""
    if role == "writer":
        return Writer(chance, target).steps()
    top = place if role == "host" else target
    directories = [top / name for name in WORKPLACES]
    return Namer(chance, directories, [top / name for name in READ_ONLY]).steps(exchanging)

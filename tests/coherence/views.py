"""The ways in which a guest can look at a tree, each apart: what one asks may refresh another."""

from __future__ import annotations

import mmap
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

PAGE = mmap.PAGESIZE


def of_status(status: os.stat_result) -> tuple[int, ...]:
    """What must agree with the host. The access time is left out: looking changes it."""
    return (
        *(status.st_mode, status.st_nlink, status.st_uid, status.st_gid, status.st_size),
        *(status.st_mtime_ns, status.st_ctime_ns),
    )


def kind_of(entry: os.DirEntry[str]) -> str:
    """The kind that the listing itself tells."""
    if entry.is_symlink():
        return "link"
    return "dir" if entry.is_dir(follow_symlinks=False) else "file"


def listed(place: Path | int) -> list[tuple[str, str]]:
    """Names and kinds; nothing where the directory is gone, which a host says in two ways."""
    with suppress(FileNotFoundError), os.scandir(place) as entries:
        return sorted((entry.name, kind_of(entry)) for entry in entries)
    return []


def content(path: Path) -> object:
    """What a fresh open reads, or where a link leads."""
    with suppress(OSError):
        return os.readlink(path)
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        return "directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else os.read(fd, PAGE)
    finally:
        os.close(fd)


def or_error(look: Callable[[Any], object], subject: object) -> object:
    """What LOOK tells about SUBJECT, or why it cannot."""
    try:
        return look(subject)
    except OSError as error:
        return error.strerror


class View(ABC):
    """One look at names in a tree; told in a form that can be compared."""

    def __init__(self, base: Path, names: Sequence[str]) -> None:
        """What has to be kept open is opened here, before anything changes."""
        self.base, self.names = base, names
        self.closing = ExitStack()

    @abstractmethod
    def look(self) -> dict[str, object]:
        """As of now."""

    def close(self) -> None:
        """Let go of what is open."""
        self.closing.close()


class ByName(View):
    """Looks at each name anew."""

    def look(self) -> dict[str, object]:
        return {name: or_error(self.one, self.base / name) for name in self.names}

    @abstractmethod
    def one(self, path: Path) -> object:
        """What there is to be told about PATH."""


class Attributes(ByName):
    def one(self, path: Path) -> object:
        return of_status(os.lstat(path))


class Contents(ByName):
    def one(self, path: Path) -> object:
        return content(path)


class Listings(ByName):
    def one(self, path: Path) -> object:
        return listed(path)


class Held(View):
    """Looks at what it has opened, whatever its name is by now."""

    wanted: Callable[[int], bool] = staticmethod(lambda mode: stat.S_ISREG(mode))

    def __init__(self, base: Path, names: Sequence[str]) -> None:
        super().__init__(base, names)
        self.open: dict[str, int] = {}
        for name in names:
            with suppress(OSError):
                if self.wanted(os.lstat(base / name).st_mode):
                    self.open[name] = os.open(base / name, os.O_RDONLY)
                    self.closing.callback(os.close, self.open[name])

    def look(self) -> dict[str, object]:
        return {name: or_error(self.through, fd) for name, fd in self.open.items()}

    @abstractmethod
    def through(self, fd: int) -> object:
        """What there is to be told through FD."""


class HeldAttributes(Held):
    wanted = staticmethod(lambda mode: not stat.S_ISLNK(mode))

    def through(self, fd: int) -> object:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode) and not status.st_nlink:
            return "gone"  # of a removed directory hosts tell all kinds of sizes
        return of_status(status)


class HeldContents(Held):
    def through(self, fd: int) -> object:
        return os.pread(fd, PAGE, 0)


class HeldListings(Held):
    wanted = staticmethod(lambda mode: stat.S_ISDIR(mode))

    def through(self, fd: int) -> object:
        return listed(fd)


class Mapped(Held):
    """Files mapped all the time, as long as they were when they were opened."""

    def __init__(self, base: Path, names: Sequence[str]) -> None:
        super().__init__(base, names)
        self.pages = {
            fd: mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ) for fd in self.open.values()
        }
        for page in self.pages.values():
            self.closing.callback(page.close)

    def through(self, fd: int) -> object:
        return bytes(self.pages[fd])


class MappedAndOpened(Mapped):
    """The same, after somebody has opened the file: without a watch only that refreshes a page."""

    def through(self, fd: int) -> object:
        os.close(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY))
        return super().through(fd)

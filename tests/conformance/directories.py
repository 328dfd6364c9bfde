"""Behaviours of listings, by the C library's readdir(3), which shows what getdents64(2) gave."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import NamedTuple

from conformance.case import Case, behaviour, opened, write

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fdopendir.restype = ctypes.c_void_p
_libc.readdir.restype = ctypes.c_void_p
_libc.telldir.restype = ctypes.c_long
_libc.readdir.argtypes = _libc.rewinddir.argtypes = [ctypes.c_void_p]
_libc.telldir.argtypes = _libc.closedir.argtypes = [ctypes.c_void_p]
_libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]


class Entry(NamedTuple):
    name: bytes
    number: int
    kind: int
    """A DT_ constant, which is the type in st_mode shifted down by 12 bits."""


class Stream:
    """A directory stream."""

    def __init__(self, path: str) -> None:
        self._stream = _libc.fdopendir(os.open(path, os.O_RDONLY | os.O_DIRECTORY))

    def read(self) -> Entry | None:
        ctypes.set_errno(0)
        found = _libc.readdir(self._stream)
        if not found:
            if ctypes.get_errno():
                raise OSError(ctypes.get_errno(), "readdir")
            return None
        number = ctypes.c_uint64.from_address(found).value
        kind = ctypes.c_ubyte.from_address(found + 18).value
        return Entry(ctypes.string_at(found + 19), number, kind)

    def rest(self) -> list[Entry]:
        entries = []
        while (entry := self.read()) is not None:
            entries.append(entry)
        return entries

    def rewind(self) -> None:
        _libc.rewinddir(self._stream)

    def tell(self) -> int:
        return int(_libc.telldir(self._stream))

    def seek(self, place: int) -> None:
        _libc.seekdir(self._stream, place)

    def close(self) -> None:
        _libc.closedir(self._stream)


def entries_of(path: str) -> list[Entry]:
    stream = Stream(path)
    try:
        return stream.rest()
    finally:
        stream.close()


@behaviour("nothing", "readdir")
def listing_holds_the_dots(case: Case) -> None:
    os.mkdir("d")
    case.same(sorted(entry.name for entry in entries_of("d")), [b".", b".."], "an empty listing")
    case.same({entry.kind for entry in entries_of("d")}, {4}, "the types of . and ..")


@behaviour("nothing", "readdir")
def listing_types_and_numbers(case: Case) -> None:
    os.mkdir("d")
    write("f")
    os.symlink("f", "l")
    os.mkfifo("p")
    os.mknod("s", stat.S_IFSOCK)
    for entry in entries_of("."):
        if entry.name != b"..":
            status = os.lstat(entry.name)
            case.same(entry.kind, stat.S_IFMT(status.st_mode) >> 12, f"type of {entry.name!r}")
            case.same(entry.number, status.st_ino, f"inode number of {entry.name!r}")
    above = [entry.number for entry in entries_of("d") if entry.name == b".."]
    case.same(above, [os.stat(".").st_ino], "the inode number of d/..")


@behaviour("nothing", "readdir")
def long_listing(case: Case) -> None:
    """More than one getdents64 and more than one FUSE readdir; each name exactly once."""
    names = {b"name-%04d-%s" % (number, b"x" * 100) for number in range(700)}
    for name in names:
        write(name)
    found = [entry.name for entry in entries_of(".")]
    case.same(len(found), len(names) + 2, "how many entries there are")
    case.same(set(found), names | {b".", b".."}, "the names")


@behaviour("nothing", "readdir")
def listing_goes_on_while_names_go(case: Case) -> None:
    for number in range(300):
        write(f"{number:03}-{'x' * 60}")
    stream = Stream(".")
    seen = []
    while (entry := stream.read()) is not None:
        if entry.name not in (b".", b".."):
            seen.append(entry.name)
            os.unlink(entry.name)
    stream.close()
    case.same(len(seen), 300, "how many names were listed, each removed as it came")
    case.same(os.listdir("."), [], "what is left")


@behaviour("nothing", "readdir")
def rewinding_sees_what_is_new(case: Case) -> None:
    write("a")
    stream = Stream(".")
    case.same(len(stream.rest()), 3, "how many entries there are")
    write("b")
    os.unlink("a")
    stream.rewind()
    case.same(sorted(entry.name for entry in stream.rest()), [b".", b"..", b"b"], "the names")
    stream.close()


@behaviour("nothing", "readdir")
def seeking_in_a_listing(case: Case) -> None:
    for number in range(40):
        write(f"f{number}")
    stream = Stream(".")
    for _ in range(10):
        stream.read()
    place = stream.tell()
    rest = [entry.name for entry in stream.rest()]
    stream.seek(place)
    case.same([entry.name for entry in stream.rest()], rest, "the rest, read again")
    case.same(len(rest), 32, "how many entries are behind the tenth")
    stream.close()


@behaviour("nothing", "readdir")
def listing_what_is_no_directory(case: Case) -> None:
    write("f")
    case.refused(errno.ENOTDIR, os.listdir, "f")
    case.refused(errno.ENOENT, os.listdir, "missing")


@behaviour("nothing", "readdir")
def listing_a_removed_directory(case: Case) -> None:
    os.mkdir("d")
    with opened("d") as fd:
        os.rmdir("d")
        case.same(os.listdir(fd), [], "the listing")


@behaviour()
def working_through_a_directory_handle(case: Case) -> None:
    os.mkdir("d")
    with opened("d", os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.mkdir("e", dir_fd=fd)
        os.close(os.open("e/f", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.symlink("e/f", "l", dir_fd=fd)
        os.link("e/f", "g", src_dir_fd=fd, dst_dir_fd=fd)
        os.rename("g", "h", src_dir_fd=fd, dst_dir_fd=fd)
        case.same(sorted(os.listdir(fd)), ["e", "h", "l"], "the listing")
        case.same(os.stat("h", dir_fd=fd).st_nlink, 2, "the link count")
        os.unlink("e/f", dir_fd=fd)
        os.rmdir("e", dir_fd=fd)
        case.same(os.stat("../d", dir_fd=fd).st_ino, os.fstat(fd).st_ino, "up and back down")
    with opened("d", os.O_PATH) as fd:
        case.same(sorted(os.listdir(f"/proc/self/fd/{fd}")), ["h", "l"], "the listing")

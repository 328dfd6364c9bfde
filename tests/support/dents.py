"""Directory listings as the kernel hands them out: getdents64(2), with `.`, `..` and types."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import NamedTuple

_SYS_GETDENTS64 = {"x86_64": 217, "aarch64": 61, "riscv64": 61}
_TYPES = {1: "fifo", 2: "chr", 4: "dir", 6: "blk", 8: "file", 10: "link", 12: "sock"}
_HEAD = struct.Struct("=QqHB")


class Dent(NamedTuple):
    """One entry."""

    name: bytes
    kind: str
    ino: int


def listing(path: Path) -> list[Dent]:
    """Every entry of a directory, in the kernel's order."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return read_all(fd)
    finally:
        os.close(fd)


def read_all(fd: int) -> list[Dent]:
    """The rest of an open directory."""
    found: list[Dent] = []
    while piece := read_some(fd):
        found += piece
    return found


def read_some(fd: int, size: int = 4096) -> list[Dent]:
    """The next entries of an open directory, as many as SIZE bytes hold; none at its end."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_long(_SYS_GETDENTS64[os.uname().machine])
    buffer = ctypes.create_string_buffer(size)
    count = libc.syscall(number, fd, buffer, size)
    if count < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return _parse(buffer.raw[:count])


def _parse(raw: bytes) -> list[Dent]:
    found = []
    while raw:
        ino, _, length, kind = _HEAD.unpack_from(raw)
        name = raw[_HEAD.size : length].split(b"\0")[0]
        found.append(Dent(name, _TYPES[kind], ino))
        raw = raw[length:]
    return found

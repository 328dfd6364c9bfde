"""What is read and brought to the disk past Python: the right bytes, in memory or not.

Over a socket everything is copied; `mounted/test_reading.py` sees what is spliced.
"""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernel.test_direct import (
    FLAGS,
    FSYNC,
    OPEN,
    READ,
    RELEASE,
    handle_of,
    lookup,
    read_body,
    release_body,
    sync_body,
)
from support.page_cache import forget, plant_large
from support.wire_client import Kernel, handlers

KIB = 1 << 10
MIB = 1 << 20
SIZE = 5 * MIB + 1234
SIZES = (0, 1, 100, 4096, 32 * KIB, 32 * KIB + 1, 64 * KIB, 128 * KIB, 512 * KIB, MIB)
"""Some that are looked for, and some that only threads wait for."""
AT_ONCE = 100
"""More than are looked for at once, and than there are threads."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with a large file, a part of which is a hole."""
    source = tmp_path / "source"
    source.mkdir()
    plant_large(source / "data", SIZE)
    return source


@pytest.fixture
def kernel(source: Path) -> Iterator[Kernel]:
    with handlers(source, directly=True) as kernel:
        kernel.init(FLAGS)
        yield kernel


def opened(kernel: Kernel, name: bytes, flags: int = os.O_RDONLY) -> tuple[int, int]:
    """The number of what NAME is, and a handle on it."""
    node = lookup(kernel, name)
    return node, handle_of(kernel.ask(OPEN, node, struct.pack("<II", flags, 0)))


def places(chance: random.Random) -> Iterator[tuple[int, int]]:
    """Offsets and sizes, at the end of the file and beyond it, too."""
    for size in SIZES:
        for offset in (0, 1, 4095, 2 * MIB - 7, SIZE - size, SIZE - 1, SIZE, SIZE + 4096):
            yield max(offset, 0), size
        for _ in range(4):
            yield chance.randrange(SIZE), size


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_bytes_are_those_of_the_file(kernel: Kernel, source: Path, in_memory: bool) -> None:
    content = (source / "data").read_bytes()
    node, handle = opened(kernel, b"data")
    for offset, size in places(random.Random(3)):
        if not in_memory:
            forget(source / "data")
        reply = kernel.ask(READ, node, read_body(handle, offset, size))
        assert (reply.error, reply.body) == (0, content[offset : offset + size]), (offset, size)


@pytest.mark.parametrize("in_memory", [True, False])
def test_many_at_once_are_answered_each_with_its_own(
    kernel: Kernel, source: Path, in_memory: bool
) -> None:
    content = (source / "data").read_bytes()
    node, handle = opened(kernel, b"data", os.O_RDWR)
    chance = random.Random(4)
    for _ in range(5):
        if not in_memory:
            forget(source / "data")
        asked = {}
        for number in range(AT_ONCE):
            offset, size = chance.randrange(SIZE), chance.choice(SIZES[:-1])
            if number % 10 == 0:
                asked[kernel.send(FSYNC, node, sync_body(handle, number % 20))] = b""
                continue
            unique = kernel.send(READ, node, read_body(handle, offset, size))
            asked[unique] = content[offset : offset + size]
        while asked:
            reply = kernel.reply()
            assert (reply.error, reply.body) == (0, asked.pop(reply.unique))


def test_a_released_handle_is_read_no_more(kernel: Kernel, source: Path) -> None:
    node, handle = opened(kernel, b"data")
    for _ in range(3):
        assert len(kernel.ask(READ, node, read_body(handle, 0, 4096)).body) == 4096
    assert kernel.ask(RELEASE, node, release_body(handle)).error == 0
    assert kernel.ask(READ, node, read_body(handle, 0, 4096)).error < 0
    _, other = opened(kernel, b"data")
    assert other != handle
    assert len(kernel.ask(READ, node, read_body(other, 0, 4096)).body) == 4096


def test_what_is_written_meanwhile_is_read(kernel: Kernel, source: Path) -> None:
    """Nothing of a reply is kept."""
    node, handle = opened(kernel, b"data")
    for size in (100, 64 * KIB):
        for byte in (b"a", b"b"):
            with (source / "data").open("r+b") as file:
                file.write(byte * size)
            assert kernel.ask(READ, node, read_body(handle, 0, size)).body == byte * size
    os.truncate(source / "data", 50 * KIB)
    assert len(kernel.ask(READ, node, read_body(handle, 0, 64 * KIB)).body) == 50 * KIB
    assert kernel.ask(READ, node, read_body(handle, 64 * KIB, 64 * KIB)).body == b""

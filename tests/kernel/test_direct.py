"""Requests answered as they are read get the replies that pyfuse3 makes, byte for byte."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.planting import plant
from support.wire_client import Kernel, Reply, handlers

LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, UNLINK, RMDIR, RENAME = 1, 2, 3, 4, 9, 10, 11, 12
OPEN, READ, WRITE, RELEASE, OPENDIR, RELEASEDIR, CREATE = 14, 15, 16, 18, 27, 29, 35
FSYNC, GETXATTR, FSYNCDIR, INTERRUPT = 20, 22, 30, 36
BATCH_FORGET, READDIRPLUS, RENAME2 = 42, 44, 45

STATFS = 17
FLAGS = 0x73FFFFFB
MALFORMED = (OPEN, OPENDIR, GETATTR, LOOKUP, MKDIR, CREATE, READ, RELEASE, RENAME, RENAME2)

ENTRY = "<QQQQII"  # before fuse_attr
ATTRIBUTES = "<QQQQQQIIIIIIIIII"
VOLATILE = {0, 3, 4, 5, 6, 7, 8}
"""Fields of ATTRIBUTES that differ between two trees made alike: the inode and its times."""


def lookup(kernel: Kernel, name: bytes, parent: int = 1) -> int:
    """The number of what NAME is."""
    reply = kernel.ask(LOOKUP, parent, name + b"\0")
    assert reply.error == 0
    return int.from_bytes(reply.body[:8], "little")


def handle_of(reply: Reply) -> int:
    return reply.opened[0]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = plant(tmp_path / "source", "file=content", "empty=", "d/inner=1", "link->file")
    os.utime(source / "file", ns=(1, -1_500_000_001))  # before 1970
    os.truncate(source / "empty", 1 << 40)
    for number in range(200):
        (source / "d" / f"{'n' * (number % 100)}{number}").touch()
    os.mkfifo(source / "fifo")
    os.setxattr(source / "file", b"user.some", b"value")
    return source


def looks(kernel: Kernel) -> Iterator[Reply]:
    """Whatever changes nothing, right and wrong."""
    yield kernel.init(FLAGS)
    for name in (
        b"file",
        b"empty",
        b"link",
        b"fifo",
        b"d",
        b"absent",
        b"n" * 256,
        b"",
        b"..",
        b"a/b",
    ):
        yield kernel.ask(LOOKUP, 1, name + b"\0")
    file, directory = lookup(kernel, b"file"), lookup(kernel, b"d")
    for node in (1, file, directory, 4711, 2**63):
        yield kernel.ask(GETATTR, node, bytes(16))
    yield kernel.ask(LOOKUP, file, b"x\0")
    yield kernel.ask(LOOKUP, 4711, b"x\0")
    for node in (file, directory, 4711):
        for flags in (os.O_RDONLY, os.O_RDWR, 3, os.O_RDONLY | os.O_DIRECT):
            yield (opened := kernel.ask(OPEN, node, struct.pack("<II", flags, 0)))
            if not opened.error:
                for offset, size in ((0, 100), (3, 2), (7, 1), (1 << 40, 9), (0, 1 << 20)):
                    yield kernel.ask(READ, node, read_body(handle_of(opened), offset, size))
                for data_only in (0, 1):
                    yield kernel.ask(FSYNC, node, sync_body(handle_of(opened), data_only))
                yield kernel.ask(RELEASE, node, release_body(handle_of(opened)))
                yield kernel.ask(RELEASE, node, release_body(handle_of(opened)))
                yield kernel.ask(READ, node, read_body(handle_of(opened), 0, 1))
                yield kernel.ask(FSYNC, node, sync_body(handle_of(opened), 0))


def lesser_looks(kernel: Kernel) -> Iterator[Reply]:
    """The same for what is asked for less often."""
    yield kernel.init(FLAGS)
    file, directory = lookup(kernel, b"file"), lookup(kernel, b"d")
    for name in (b"user.some", b"user.none", b"user.", b"security.capability"):
        for size in (0, 4, 5, 65536):
            yield kernel.ask(GETXATTR, file, struct.pack("<II", size, 0) + name + b"\0")
    yield kernel.ask(GETXATTR, 4711, struct.pack("<II", 9, 0) + b"user.some\0")
    for node in (1, directory):
        opened = kernel.ask(OPENDIR, node, bytes(8))
        yield kernel.ask(FSYNCDIR, node, sync_body(handle_of(opened), 0))
        yield kernel.ask(RELEASEDIR, node, release_body(handle_of(opened)))
        yield kernel.ask(FSYNCDIR, node, sync_body(handle_of(opened), 1))


def listings(kernel: Kernel) -> Iterator[Reply]:
    """Whole listings in replies of several sizes, and wrong ones."""
    yield kernel.init(FLAGS)
    directory = lookup(kernel, b"d")
    for node in (1, directory):
        for room in (200, 512, 4096, 32768):
            yield (opened := kernel.ask(OPENDIR, node, bytes(8)))
            place = 0
            while True:
                reply = kernel.ask(READDIRPLUS, node, read_body(handle_of(opened), place, room))
                yield reply
                if not reply.body:
                    break
                place = last_place(reply.body)
            yield kernel.ask(RELEASEDIR, node, release_body(handle_of(opened)))
    yield kernel.ask(OPENDIR, lookup(kernel, b"file"), bytes(8))
    yield kernel.ask(READDIRPLUS, directory, read_body(4711, 0, 4096))


def malformed(kernel: Kernel) -> Iterator[Reply]:
    """What no kernel sends."""
    yield kernel.init(FLAGS)
    for opcode in (*MALFORMED, GETXATTR, FSYNC, FSYNCDIR):
        yield kernel.ask(opcode, 1, bytes(200_000))
    for opcode in (LOOKUP, UNLINK, RMDIR):
        yield kernel.ask(opcode, 1, b"a\0b\0")


def changes(kernel: Kernel) -> Iterator[Reply]:
    """Whatever changes something."""
    yield kernel.init(FLAGS)
    wants = struct.pack("<IIII", os.O_RDWR, 0o640, 0, 0)
    for name in (b"new", b"new", b"d", b"x" * 256):
        yield (created := kernel.ask(CREATE, 1, wants + name + b"\0"))
        if not created.error:
            node, handle = int.from_bytes(created.body[:8], "little"), handle_of(created)
            yield kernel.ask(WRITE, node, write_body(handle, 3, b"abc"))
            yield kernel.ask(WRITE, node, write_body(handle, 3, b""))
            yield kernel.ask(READ, node, read_body(handle, 0, 100))
            yield kernel.ask(SETATTR, node, setattr_body(1 << 3 | 1 << 6, fh=handle, size=2))
            yield kernel.ask(RELEASE, node, release_body(handle))
            yield kernel.ask(WRITE, node, write_body(handle, 3, b"abc"))
    exclusive = struct.pack("<IIII", os.O_RDWR | os.O_EXCL, 0o640, 0, 0)
    yield kernel.ask(CREATE, 1, exclusive + b"new\0")
    for name in (b"made", b"made", b"file"):
        yield kernel.ask(MKDIR, 1, struct.pack("<II", 0o750, 0) + name + b"\0")
    moved = lookup(kernel, b"new")
    for valid in (
        1 << 0,
        1 << 1,
        1 << 2,
        1 << 4,
        1 << 5,
        1 << 4 | 1 << 5,
        0,
        (1 << 10) - 1 - (1 << 6),
    ):
        yield kernel.ask(SETATTR, moved, setattr_body(valid))
    place = lookup(kernel, b"made")
    for old, directory, new in (
        (b"new", place, b"moved"),
        (b"none", 1, b"x"),
        (b"made", place, b"x"),
    ):
        yield kernel.ask(RENAME, 1, struct.pack("<Q", directory) + old + b"\0" + new + b"\0")
    for flags in (0, 1, 2, 4):
        body = struct.pack("<QII", 1, flags, 0) + b"file\0empty\0"
        yield kernel.ask(RENAME2, 1, body)
    for opcode, name in ((RMDIR, b"made"), (UNLINK, b"empty"), (UNLINK, b"empty"), (UNLINK, b"d")):
        yield kernel.ask(opcode, 1, name + b"\0")
    yield kernel.ask(UNLINK, place, b"moved\0")
    yield kernel.ask(RMDIR, 1, b"made\0")


def read_body(handle: int, offset: int, size: int) -> bytes:
    return struct.pack("<QQIIQII", handle, offset, size, 0, 0, 0, 0)


def write_body(handle: int, offset: int, data: bytes) -> bytes:
    return struct.pack("<QQIIQII", handle, offset, len(data), 0, 0, 0, 0) + data


def release_body(handle: int) -> bytes:
    return struct.pack("<QIIQ", handle, 0, 0, 0)


def sync_body(handle: int, data_only: int) -> bytes:
    return struct.pack("<QII", handle, data_only, 0)


def setattr_body(valid: int, fh: int = 0, size: int = 7) -> bytes:
    times = (1_500_000_000, 2, 3, 4_000, 5_000, 6_000)
    return struct.pack("<IIQQQQQQIIIIIIII", valid, 0, fh, size, 0, *times, 0o4711, 0, 12, 34, 0)


def last_place(body: bytes) -> int:
    """The cookie of the last entry of a listing."""
    place = at = 0
    while at < len(body):
        _, place, length, _ = struct.unpack_from("<QQII", body, at + 128)
        at += (128 + 24 + length + 7) // 8 * 8
    return place


def of_what_is_there(reply: Reply) -> Reply:
    """REPLY; of a name that is absent without the attributes, which mean nothing then."""
    is_absent = len(reply.body) == 128 and not any(reply.body[:8])
    return reply._replace(body=reply.body[:40]) if is_absent else reply


def without_inodes(reply: Reply) -> object:
    """REPLY without what differs between two trees that are made and treated alike."""
    body = reply.body
    if len(body) in (128, 144):
        return (
            reply.error,
            *struct.unpack_from(ENTRY, body)[1:],
            attributes(body[40:128]),
            body[136:],
        )
    if len(body) == 104:
        return reply.error, body[:16], attributes(body[16:])
    return reply.error, body


def attributes(body: bytes) -> list[int]:
    fields = struct.unpack(ATTRIBUTES, body)
    return [field for index, field in enumerate(fields) if index not in VOLATILE]


@pytest.mark.parametrize("conversation", [looks, lesser_looks, listings, malformed])
def test_replies_are_the_same(
    source: Path, conversation: Callable[[Kernel], Iterator[Reply]]
) -> None:
    said = []
    for directly in (True, True, False):
        with handlers(source, directly=directly) as kernel:
            said.append([of_what_is_there(reply) for reply in conversation(kernel)])
    assert said[1] == said[2]  # the first time moves access times
    assert len(said[0]) > 10 and any(not reply.error for reply in said[0])


def test_changes_are_the_same(tmp_path: Path, source: Path) -> None:
    said = []
    for directly in (True, False):
        place = tmp_path / str(directly)
        os.system(f"cp -a {source} {place}")
        with handlers(place, directly=directly) as kernel:
            said.append([without_inodes(reply) for reply in changes(kernel)])
    assert said[0] == said[1]
    left = [sorted(os.listdir(tmp_path / str(directly))) for directly in (True, False)]
    assert left[0] == left[1] == ["d", "fifo", "link"]


def test_what_is_forgotten_is_forgotten(source: Path) -> None:
    """Neither request is replied to."""
    with handlers(source, directly=True) as kernel:
        kernel.init(FLAGS)
        numbers = [lookup(kernel, name) for name in (b"file", b"d", b"empty")]
        kernel.send(FORGET, numbers[0], struct.pack("<Q", 1))
        pairs = b"".join(struct.pack("<QQ", number, 1) for number in numbers[1:])
        kernel.send(BATCH_FORGET, 0, struct.pack("<II", 2, 0) + pairs)
        for number in numbers:
            assert kernel.ask(GETATTR, number, bytes(16)).error < 0
        assert lookup(kernel, b"file") == numbers[0]


def test_what_is_interrupted_is_answered_all_the_same(source: Path) -> None:
    """And nothing is said to the interruption, neither now nor with the next request."""
    with handlers(source, directly=True) as kernel:
        kernel.init(FLAGS)
        file = lookup(kernel, b"file")
        handle = handle_of(kernel.ask(OPEN, file, bytes(8)))
        read = kernel.send(READ, file, read_body(handle, 0, 100))
        for unique in (read, read + 4711):
            kernel.send(INTERRUPT, 0, struct.pack("<Q", unique))
        asked = [read, *(kernel.send(opcode, file, bytes(16)) for opcode in (STATFS, GETATTR))]
        assert sorted(kernel.reply().unique for _ in asked) == asked
        assert kernel.ask(STATFS, file).error == 0


def test_requests_come_in_any_order_with_those_that_are_passed_on(source: Path) -> None:
    with ExitStack() as stack:
        kernel = stack.enter_context(handlers(source, directly=True))
        kernel.init(FLAGS)
        asked = [kernel.send(opcode, 1, b"file\0") for opcode in (STATFS, LOOKUP) * 20]
        replies = [kernel.reply() for _ in asked]
    assert sorted(reply.unique for reply in replies) == asked
    assert all(reply.error == 0 for reply in replies)

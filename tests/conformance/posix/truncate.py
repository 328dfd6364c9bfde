"""truncate(2), ftruncate(2) and posix_fallocate(3): sizes, rights, set-id bits, times."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from conformance.case import Case, behaviour, mode_of, opened, opened_and_closed, read, user, write
from conformance.posix.support import ALICE, BOB, CAROL, MAKERS, USERS, give, times, untouched


def _by_handle(path: str, size: int) -> None:
    with opened(path, os.O_RDWR) as fd:
        os.ftruncate(fd, size)


_WAYS: tuple[Callable[[str, int], None], ...] = (os.truncate, _by_handle)


@behaviour("users", "truncate", "ftruncate")
def truncate_to_every_size(case: Case) -> None:
    content = bytes(range(1, 256)) * 40
    for shorten in _WAYS:
        write("f", content)
        for size in (10_200, 4097, 4096, 4095, 1, 0, 5000, 20_000):
            with times(case, {"f": "mc", ".": ""}):
                shorten("f", size)
            content = content[:size].ljust(size, b"\0")
            case.same(read("f"), content, f"the content at {size}")
        content = bytes(range(1, 256)) * 40
    os.truncate("f", 2**40)
    case.same(os.stat("f").st_size, 2**40, "a size far behind the blocks")
    case.true(os.stat("f").st_blocks < 1000, "it takes no room")


@behaviour("users", "truncate")
def truncate_by_a_link(case: Case) -> None:
    write("f", b"content")
    os.symlink("f", "l")
    os.link("f", "g")
    with times(case, {"f": "mc", "l": "", ".": ""}):
        os.truncate("l", 3)
    case.same((read("f"), read("g")), (b"con", b"con"), "the contents")


@behaviour("users", "truncate", "ftruncate")
def truncate_refused(case: Case) -> None:
    for kind, make in MAKERS.items():
        make(kind)
        number = {"directory": errno.EISDIR, "file": 0, "symlink": errno.ENOENT}
        with times(case, {kind: "" if kind != "file" else "mc"}):
            case.refused(number.get(kind, errno.EINVAL), os.truncate, kind, 0)
    with untouched(case, "file"):
        for shorten in _WAYS:
            case.refused(errno.EINVAL, shorten, "file", -1)
            case.refused(errno.EFBIG, shorten, "file", 2**63 - 1)
        with opened("file", os.O_RDONLY) as fd:
            case.refused(errno.EINVAL, os.ftruncate, fd, 0)
        with opened("directory", os.O_RDONLY) as fd:
            case.refused(errno.EINVAL, os.ftruncate, fd, 0)
        case.refused(errno.EINVAL, os.truncate, "missing", -1)


@behaviour("users", "truncate")
def truncate_needs_write_permission(case: Case) -> None:
    write("f", b"content")
    for mode in (0o644, 0o640, 0o600):
        give("f", ALICE, mode)
        for caller in (BOB, CAROL):
            with untouched(case, "f"), user(*caller):
                case.refused(errno.EACCES, os.truncate, "f", 0)
    give("f", ALICE, 0o444)
    with untouched(case, "f"), user(*ALICE):
        case.refused(errno.EACCES, os.truncate, "f", 0)
    case.same(read("f"), b"content", "the content")


@behaviour("users", "ftruncate")
def truncate_by_a_handle_opened_before(case: Case) -> None:
    """What was opened for writing may be truncated, whatever became of the mode."""
    for caller in USERS:
        write("f", b"content")
        give("f", caller, 0o600)
        with user(*caller), opened("f", os.O_RDWR) as fd:
            os.fchmod(fd, 0)
            case.done(os.ftruncate, fd, 3)
            case.refused(errno.EACCES, os.truncate, "f", 1)
        case.same(os.stat("f").st_size, 3, "the size")
        os.unlink("f")


@behaviour("users", "truncate", "ftruncate", "open")
def truncate_and_set_id_bits(case: Case) -> None:
    calls: tuple[Callable[[], object], ...] = (
        lambda: os.truncate("f", 1),
        lambda: _by_handle("f", 1),
        lambda: opened_and_closed("f", os.O_WRONLY | os.O_TRUNC),
    )
    for call in calls:
        for mode, left in ((0o6777, 0o777), (0o4766, 0o766), (0o2776, 0o776), (0o1666, 0o1666)):
            for caller in (ALICE, BOB):
                write("f", b"abc")
                give("f", ALICE, mode)
                with user(*caller):
                    call()
                case.same(mode_of("f"), left, f"{mode:o} after truncation by {caller}")
            os.unlink("f")


@behaviour("users", "posix_fallocate")
def posix_fallocate_makes_room(case: Case) -> None:
    write("f", b"content")
    with opened("f", os.O_RDWR) as fd:
        with times(case, {"f": "mc", ".": ""}):
            os.posix_fallocate(fd, 0, 10_000)
        case.same(os.pread(fd, 20_000, 0), b"content".ljust(10_000, b"\0"), "the content")
        case.true(os.fstat(fd).st_blocks >= 20, "the blocks are there")
        os.posix_fallocate(fd, 0, 5)
        os.posix_fallocate(fd, 20_000, 1)
        case.same(os.fstat(fd).st_size, 20_001, "the size")
        case.same(os.pread(fd, 9, 0), b"content\0\0", "what was there before")


@behaviour("users", "posix_fallocate")
def posix_fallocate_refused(case: Case) -> None:
    write("f", b"content")
    reading, writing = os.pipe()
    with opened("f", os.O_RDWR) as fd, opened("f") as unwritable, untouched(case, "f"):
        case.refused(errno.EINVAL, os.posix_fallocate, fd, 0, 0)
        case.refused(errno.EINVAL, os.posix_fallocate, fd, -1, 10)
        case.refused(errno.EINVAL, os.posix_fallocate, fd, 0, -1)
        case.refused(errno.EFBIG, os.posix_fallocate, fd, 2**63 - 1, 10)
        case.refused(errno.EBADF, os.posix_fallocate, unwritable, 0, 10)
        case.refused(errno.ESPIPE, os.posix_fallocate, writing, 0, 10)
    os.close(reading)
    os.close(writing)


@behaviour("users", "posix_fallocate")
def posix_fallocate_as_somebody_else(case: Case) -> None:
    for caller in USERS:
        write("f")
        give("f", caller, 0o600)
        with user(*caller), opened("f", os.O_RDWR) as fd:
            os.posix_fallocate(fd, 5, 10)
        case.same(os.stat("f").st_size, 15, "the size")
        os.unlink("f")


@behaviour("users", "posix_fallocate")
def posix_fallocate_for_appending(case: Case) -> None:
    write("f")
    with opened("f", os.O_WRONLY | os.O_APPEND) as fd:
        case.excepted("posix_fallocate for appending", os.posix_fallocate, fd, 0, 10)

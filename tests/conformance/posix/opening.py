"""open(2): flags, permissions, times, programs that run."""

from __future__ import annotations

import errno
import os
import socket
import subprocess

from conformance.case import Case, behaviour, opened, opened_and_closed, read, user, write
from conformance.posix.support import (
    ALICE,
    BOB,
    CAROL,
    MAKERS,
    SHARED_GROUP,
    USERS,
    give,
    running,
    times,
    untouched,
)

READ, WRITE, BOTH = os.O_RDONLY, os.O_WRONLY, os.O_RDWR


@behaviour("users", "open")
def open_by_the_mode(case: Case) -> None:
    """Owner, group, others: the first class that fits decides, also where another gives more."""
    write("f")
    os.mkdir("d")
    callers = ((ALICE, (), 6), (CAROL, (), 3), (BOB, (ALICE[1],), 3), (BOB, (), 0))
    for path in ("f", "d"):
        for caller, groups, shift in callers:
            for bits in range(8):
                give(path, ALICE, (0o777 & ~(7 << shift)) | bits << shift)
                with user(*caller, groups):
                    case.refused(0 if bits & 4 else errno.EACCES, opened_and_closed, path, READ)
                    if path == "d":
                        case.refused(0 if bits & 1 else errno.EACCES, os.stat, "d/.")
                        continue
                    number = 0 if bits & 2 else errno.EACCES
                    case.refused(number, opened_and_closed, path, WRITE)
                    number = 0 if bits & 6 == 6 else errno.EACCES
                    case.refused(number, opened_and_closed, path, BOTH)


@behaviour("users", "open")
def open_truncating_needs_writing(case: Case) -> None:
    write("f", b"content")
    for mode in (0o644, 0o600):
        give("f", BOB, mode)
        for caller in (ALICE, CAROL):
            with untouched(case, "f"), user(*caller):
                case.refused(errno.EACCES, opened_and_closed, "f", WRITE | os.O_TRUNC)
                case.refused(errno.EACCES, opened_and_closed, "f", READ | os.O_TRUNC)
                case.refused(errno.EACCES, opened_and_closed, "f", WRITE | os.O_CREAT | os.O_TRUNC)
    case.same(read("f"), b"content", "the content")
    with times(case, {"f": "mc", ".": ""}), user(*BOB):
        opened_and_closed("f", WRITE | os.O_TRUNC | os.O_CREAT)
    case.same(read("f"), b"", "the content that was truncated")


@behaviour("users", "open")
def open_leaves_the_times(case: Case) -> None:
    write("f", b"x")
    with times(case, {"f": "", ".": ""}):
        opened_and_closed("f", WRITE)
        opened_and_closed("f", BOTH | os.O_CREAT)
        opened_and_closed("f", WRITE | os.O_APPEND)


@behaviour("users", "open")
def open_directories(case: Case) -> None:
    os.mkdir("d")
    write("f")
    os.symlink("d", "way")
    with untouched(case, "d", "f"):
        for flags in (WRITE, BOTH, READ | os.O_TRUNC, READ | os.O_CREAT, BOTH | os.O_CREAT):
            case.refused(errno.EISDIR, opened_and_closed, "d", flags)
        case.refused(errno.ENOTDIR, opened_and_closed, "f", READ | os.O_DIRECTORY)
        case.refused(errno.ENOTDIR, opened_and_closed, "way", READ | os.O_DIRECTORY | os.O_NOFOLLOW)
        case.refused(errno.ELOOP, opened_and_closed, "way", READ | os.O_NOFOLLOW)
        case.refused(errno.EEXIST, opened_and_closed, "d", WRITE | os.O_CREAT | os.O_EXCL)


@behaviour("users", "open")
def open_special_files(case: Case) -> None:
    MAKERS["fifo"]("fifo")
    case.refused(errno.ENXIO, opened_and_closed, "fifo", WRITE | os.O_NONBLOCK)
    case.done(opened_and_closed, "fifo", READ | os.O_NONBLOCK)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        for flags in (READ, WRITE, BOTH):
            case.refused(errno.ENXIO, opened_and_closed, "socket", flags)
    give("fifo", ALICE, 0o600)
    with user(*BOB):
        case.refused(errno.EACCES, opened_and_closed, "fifo", READ | os.O_NONBLOCK)


@behaviour("users", "open", "truncate")
def open_what_runs(case: Case) -> None:
    with running("program"), untouched(case, "program"):
        for flags in (WRITE, BOTH, WRITE | os.O_TRUNC):
            case.refused(errno.ETXTBSY, opened_and_closed, "program", flags)
        case.refused(errno.ETXTBSY, os.truncate, "program", 0)
        case.done(opened_and_closed, "program", READ)
    case.done(opened_and_closed, "program", WRITE)
    with opened("program", WRITE):
        case.refused(errno.ETXTBSY, subprocess.run, ["./program"])


@behaviour("users", "open")
def open_what_runs_for_reading_and_truncating(case: Case) -> None:
    """POSIX leaves O_TRUNC with O_RDONLY open; Linux truncates, where nothing speaks against it."""
    with running("program"):
        case.refused(errno.ETXTBSY, opened_and_closed, "program", READ | os.O_TRUNC)
        content = "stays" if os.stat("program").st_size else "goes"
    case.differs("content of what runs, after O_RDONLY with O_TRUNC", content)


@behaviour("users", "open")
def open_creating_for_reading_only(case: Case) -> None:
    """The mode that is asked for holds for later opens, not for this one."""
    os.mkdir("d")
    give("d", (0, SHARED_GROUP), 0o770)
    for caller in USERS:
        with user(*caller, (SHARED_GROUP,)):
            fd = os.open("d/f", BOTH | os.O_CREAT, 0)
            case.same(os.write(fd, b"x"), 1, "what was written")
            os.close(fd)
            case.refused(errno.EACCES, opened_and_closed, "d/f", READ)
            os.unlink("d/f")

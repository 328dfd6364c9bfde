"""utimensat(2): who may set which time, and what it does to the others."""

from __future__ import annotations

import errno
import os

from conformance.case import (
    AT_SYMLINK_NOFOLLOW,
    UTIME_NOW,
    UTIME_OMIT,
    Case,
    behaviour,
    opened,
    user,
    utimensat,
    write,
)
from conformance.posix.support import ALICE, BOB, CAROL, MAKERS, give, times, untouched

NOW, OMIT = (0, UTIME_NOW), (0, UTIME_OMIT)
GIVEN = (1_000_000_000, 123_456_789)


@behaviour("users", "utimensat")
def utimensat_of_every_kind(case: Case) -> None:
    for kind, make in MAKERS.items():
        make(kind)
        for atime, mtime, moved in (
            ((5, 6), (7, 8), "amc"),
            ((1, 2), OMIT, "ac"),
            (OMIT, (3, 4), "mc"),
            (OMIT, OMIT, ""),
            (NOW, NOW, "amc"),
        ):
            with times(case, {kind: moved, ".": ""}):
                utimensat(kind, atime, mtime, AT_SYMLINK_NOFOLLOW)
        utimensat(kind, (1, 2), (3, 4), AT_SYMLINK_NOFOLLOW)
        status = os.lstat(kind)
        got = (status.st_atime_ns, status.st_mtime_ns)
        case.same(got, (1_000_000_002, 3_000_000_004), f"the times of the {kind}")


@behaviour("users", "utimensat")
def utimensat_of_every_second(case: Case) -> None:
    write("f")
    for seconds in (0, 1, -1, 2**31 - 1, 2**31, 2**32 + 5, 1 - 2**31):
        for nanoseconds in (0, 1, 999_999_999):
            utimensat("f", (seconds, nanoseconds), (seconds + 1, nanoseconds))
            status = os.stat("f")
            wanted = seconds * 10**9 + nanoseconds
            case.same(status.st_atime_ns, wanted, "the atime")
            case.same(status.st_mtime_ns, wanted + 10**9, "the mtime")


@behaviour("users", "utimensat")
def utimensat_follows_or_not(case: Case) -> None:
    write("f")
    os.symlink("f", "l")
    with times(case, {"f": "amc", "l": "", ".": ""}):
        utimensat("l", GIVEN, GIVEN)
    with times(case, {"f": "", "l": "amc", ".": ""}):
        utimensat("l", GIVEN, GIVEN, AT_SYMLINK_NOFOLLOW)


@behaviour("users", "utimensat")
def utimensat_refused(case: Case) -> None:
    write("f")
    with untouched(case, "f"):
        for bad in ((0, 10**9), (0, -1), (0, 2**31)):
            case.refused(errno.EINVAL, utimensat, "f", bad, GIVEN)
            case.refused(errno.EINVAL, utimensat, "f", GIVEN, bad)
        case.refused(errno.EINVAL, utimensat, "f", GIVEN, GIVEN, 0x10000)
        case.done(utimensat, "missing", OMIT, OMIT)


@behaviour("users", "utimensat")
def utimensat_by_somebody_else(case: Case) -> None:
    """Given times take the owner; the present takes the owner or write permission."""
    for kind in ("file", "directory", "fifo"):
        MAKERS[kind](kind)
        give(kind, ALICE, 0o644)
        for caller in (BOB, CAROL):
            with untouched(case, kind), user(*caller):
                case.refused(errno.EACCES, utimensat, kind, NOW, NOW)
                for atime, mtime in ((GIVEN, GIVEN), (NOW, OMIT), (OMIT, NOW), (GIVEN, NOW)):
                    case.refused(errno.EPERM, utimensat, kind, atime, mtime)
                case.done(utimensat, kind, OMIT, OMIT)
        os.chmod(kind, 0o666)
        for caller in (BOB, CAROL):
            with untouched(case, kind), user(*caller):
                for atime, mtime in ((GIVEN, GIVEN), (NOW, OMIT), (OMIT, NOW), (GIVEN, NOW)):
                    case.refused(errno.EPERM, utimensat, kind, atime, mtime)
            with times(case, {kind: "amc"}), user(*caller):
                case.done(utimensat, kind, NOW, NOW)


@behaviour("users", "utimensat")
def utimensat_by_the_owner(case: Case) -> None:
    for kind in ("file", "directory", "fifo"):
        MAKERS[kind](kind)
        give(kind, ALICE, 0)
        for atime, mtime, moved in (
            (GIVEN, GIVEN, "amc"),
            (NOW, OMIT, "ac"),
            (OMIT, NOW, "mc"),
            (GIVEN, NOW, "amc"),
        ):
            with times(case, {kind: moved}), user(*ALICE):
                case.done(utimensat, kind, atime, mtime)


@behaviour("users", "utimensat")
def utimensat_by_handle(case: Case) -> None:
    write("f")
    give("f", ALICE, 0o644)
    with opened("f") as fd:
        with untouched(case, "f"), user(*BOB):
            case.refused(errno.EPERM, lambda: os.utime(fd, (1, 2)))
            case.refused(errno.EACCES, lambda: os.utime(fd))
        with times(case, {"f": "amc"}), user(*ALICE):
            os.utime(fd, (1, 2))
        os.unlink("f")
        os.utime(fd, (3, 4))
        case.same((os.fstat(fd).st_atime, os.fstat(fd).st_mtime), (3, 4), "the times")

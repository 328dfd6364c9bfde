"""unlink(2) and rmdir(2): kinds, sticky directories, times, link counts."""

from __future__ import annotations

import errno
import os

from conformance.case import Case, behaviour, opened, user, write
from conformance.posix.support import (
    ALICE,
    BOB,
    CAROL,
    MAKERS,
    SHARED_GROUP,
    give,
    links_of,
    remove,
    times,
    untouched,
)


@behaviour("users", "unlink", "rmdir")
def removing_every_kind(case: Case) -> None:
    os.mkdir("d")
    for kind, make in MAKERS.items():
        make(f"d/{kind}")
        with times(case, {"d": "mc", ".": ""}):
            (os.rmdir if kind == "directory" else os.unlink)(f"d/{kind}")
        case.refused(errno.ENOENT, os.lstat, f"d/{kind}")
        case.same(links_of("d"), (2,), "the directory's link count")


@behaviour("users", "unlink", "rmdir")
def removing_with_the_wrong_call(case: Case) -> None:
    for kind, make in MAKERS.items():
        make(kind)
        with untouched(case, kind):
            if kind == "directory":
                case.refused(errno.EISDIR, os.unlink, kind)
                case.refused(errno.EISDIR, os.unlink, kind + "/")
            else:
                case.refused(errno.ENOTDIR, os.rmdir, kind)
    os.symlink("directory", "way")
    case.refused(errno.ENOTDIR, os.rmdir, "way")
    case.refused(errno.ENOTDIR, os.rmdir, "way/")


@behaviour("users", "unlink", "rmdir")
def removing_dots(case: Case) -> None:
    os.makedirs("d/e")
    with untouched(case, "d", "d/e"):
        case.refused(errno.EINVAL, os.rmdir, "d/e/.")
        case.refused(errno.ENOTEMPTY, os.rmdir, "d/e/..")
        case.refused(errno.EISDIR, os.unlink, "d/.")
        case.refused(errno.EISDIR, os.unlink, "d/..")
        case.refused(errno.EINVAL, os.rmdir, ".")


@behaviour("users", "rmdir")
def removing_what_is_not_empty(case: Case) -> None:
    os.mkdir("d")
    for kind, make in MAKERS.items():
        make(f"d/{kind}")
        with untouched(case, "d", f"d/{kind}"):
            case.refused(errno.ENOTEMPTY, os.rmdir, "d")
            case.refused(errno.ENOTEMPTY, os.rmdir, "d/")
        remove(f"d/{kind}")
    case.done(os.rmdir, "d")


@behaviour("users", "unlink", "rmdir")
def removing_in_sticky_directories(case: Case) -> None:
    """Allowed to the owner of what is removed, the owner of the directory, and root."""
    for kind, make in MAKERS.items():
        drop = os.rmdir if kind == "directory" else os.unlink
        os.mkdir("d")
        give("d", ALICE, 0o1777)
        for owner in (ALICE, BOB):
            for caller, allowed in ((CAROL, False), (BOB, owner == BOB), (ALICE, True)):
                make("d/x")
                os.lchown("d/x", *owner)
                moved = {"d": "mc" if allowed else "", ".": ""}
                with times(case, moved), user(*caller):
                    case.refused(0 if allowed else errno.EPERM, drop, "d/x")
                remove("d/x") if not allowed else None
        make("d/x")
        os.lchown("d/x", *BOB)
        case.done(drop, "d/x")
        os.rmdir("d")


@behaviour("users", "unlink", "rmdir")
def removing_by_group_and_others(case: Case) -> None:
    os.mkdir("d")
    for mode, number in ((0o770, 0), (0o750, errno.EACCES), (0o720, errno.EACCES)):
        for kind, drop in (("file", os.unlink), ("directory", os.rmdir)):
            give("d", (0, SHARED_GROUP), mode)
            MAKERS[kind]("d/x")
            with user(*ALICE, (SHARED_GROUP,)):
                case.refused(number, drop, "d/x")
            with user(*BOB):
                case.refused(errno.EACCES, drop, "d/x")
            if number:
                remove("d/x")


@behaviour("users", "unlink")
def removing_what_is_open(case: Case) -> None:
    write("f", b"content")
    os.link("f", "g")
    with opened("f", os.O_RDWR) as fd:
        with times(case, {"g": "c", ".": "mc"}):
            os.unlink("f")
        case.same(os.fstat(fd).st_nlink, 1, "the link count after the first")
        os.unlink("g")
        case.same(os.fstat(fd).st_nlink, 0, "the link count after the last")
        case.same(os.pread(fd, 9, 0), b"content", "the content")
        os.pwrite(fd, b"C", 0)
        os.ftruncate(fd, 3)
        case.same((os.pread(fd, 9, 0), os.fstat(fd).st_size), (b"Con", 3), "what was changed")
        os.utime(fd, (5, 6))
        case.same(os.fstat(fd).st_mtime, 6, "the time that was set")


@behaviour("users", "rmdir")
def removing_an_open_directory(case: Case) -> None:
    os.makedirs("d/e")
    with opened("d/e") as fd:
        with times(case, {"d": "mc"}):
            os.rmdir("d/e")
        case.same(os.fstat(fd).st_nlink, 0, "the link count of what has gone")
        case.same(os.listdir(fd), [], "its listing")
        case.refused(errno.ENOENT, lambda: os.mkdir("x", dir_fd=fd))

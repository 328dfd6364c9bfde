"""rename(2): kinds, sticky directories, link counts, times, precedence of errnos."""

from __future__ import annotations

import errno
import os
import stat

from conformance.case import Case, behaviour, read, user, write
from conformance.posix.support import (
    ALICE,
    BOB,
    CAROL,
    MAKERS,
    give,
    links_of,
    remove,
    times,
    untouched,
)


@behaviour("users", "rename")
def rename_every_kind(case: Case) -> None:
    os.mkdir("d")
    for kind, make in MAKERS.items():
        make(kind)
        before = os.lstat(kind)
        with times(case, {".": "mc", "d": "mc"}):
            os.rename(kind, "d/new")
        after = os.lstat("d/new")
        same = [
            (s.st_ino, s.st_mode, s.st_nlink, s.st_size, s.st_mtime_ns) for s in (before, after)
        ]
        case.same(same[1], same[0], f"inode, mode, links, size and mtime of the {kind}")
        case.refused(errno.ENOENT, os.lstat, kind)
        with times(case, {"d/new": "c"}):
            os.rename("d/new", "d/newer")
        remove("d/newer")


@behaviour("users", "rename")
def rename_over_every_kind(case: Case) -> None:
    for old, make_old in MAKERS.items():
        for new, make_new in MAKERS.items():
            make_old("old")
            make_new("new")
            ends = os.lstat("old").st_ino
            number = {(True, False): errno.ENOTDIR, (False, True): errno.EISDIR}.get(
                (old == "directory", new == "directory"), 0
            )
            moved = {"old": "c" if not number else "", ".": "mc" if not number else ""}
            with times(case, moved):
                case.refused(number, os.rename, "old", "new")
            if not number:
                case.same(os.lstat("new").st_ino, ends, f"the inode: {old} over {new}")
            remove("new")
            if number:
                remove("old")


@behaviour("users", "rename")
def rename_over_a_name_of_many(case: Case) -> None:
    write("f")
    write("g")
    os.link("g", "h")
    with times(case, {"h": "c", "f": "c"}):
        os.rename("f", "g")
    case.same(links_of("g", "h"), (1, 1), "the link counts")
    os.link("g", "f")
    with times(case, {"f": "", "g": "", ".": ""}):
        case.done(os.rename, "f", "g")
    case.same(links_of("f", "g"), (2, 2), "two names of one file stay")


@behaviour("users", "rename")
def rename_of_directories_moves_link_counts(case: Case) -> None:
    for name in ("a", "b", "a/x", "a/x/y", "b/empty"):
        os.mkdir(name)
    with times(case, {"a": "mc", "b": "mc", "a/x/y": ""}):
        os.rename("a/x", "b/x")
    case.same(links_of("a", "b", "b/x"), (2, 4, 3), "the link counts")
    os.rename("b/x", "b/empty")
    case.same(links_of("b", "b/empty"), (3, 3), "the link counts after replacing")
    case.same(os.stat("b/empty/y/../..").st_ino, os.stat("b").st_ino, "the parent")


@behaviour("users", "rename")
def rename_refused_before_it_is_tried(case: Case) -> None:
    os.makedirs("d/e/f")
    os.mkdir("full")
    write("full/x")
    write("g")
    with untouched(case, "d", "d/e", "full", "g"):
        for old, new, number in (
            ("d", "d/e/new", errno.EINVAL),
            ("d", "d/new", errno.EINVAL),
            ("d/e", "d", errno.ENOTEMPTY),
            ("d", "full", errno.ENOTEMPTY),
            ("d/e/f", "d/e", errno.ENOTEMPTY),
            ("d/.", "new", errno.EBUSY),
            ("d/..", "new", errno.EBUSY),
            ("d", "full/.", errno.EBUSY),
            ("d", "full/..", errno.EBUSY),
            ("g/", "new", errno.ENOTDIR),
            ("g", "new/", errno.ENOTDIR),
            ("g", "d/", errno.ENOTDIR),
            ("missing", "d", errno.ENOENT),
            ("missing", "missing/new", errno.ENOENT),
            ("missing", "g/new", errno.ENOTDIR),
            ("missing", "n" * 256, errno.ENOENT),
            ("n" * 256, "missing/new", errno.ENOENT),
            ("n" * 256, "new", errno.ENAMETOOLONG),
        ):
            case.refused(number, os.rename, old, new)
    case.done(os.rename, "d/", "new/")


@behaviour("users", "rename")
def rename_in_sticky_directories(case: Case) -> None:
    """What goes, and what is replaced, must be the caller's or lie in the caller's directory."""
    for kind in ("file", "directory", "symlink"):
        for owner, caller, allowed in (
            (BOB, CAROL, False),
            (BOB, BOB, True),
            (BOB, ALICE, True),
            (CAROL, BOB, False),
        ):
            os.mkdir("d")
            give("d", ALICE, 0o1777)
            for name in ("d/theirs", "d/own"):
                MAKERS[kind](name)
            os.lchown("d/theirs", *owner)
            os.lchown("d/own", *caller)
            number = 0 if allowed else errno.EPERM
            with times(case, {"d": "mc" if allowed else "", ".": ""}), user(*caller):
                case.refused(number, os.rename, "d/own", "d/theirs")
            os.rename("d/theirs" if allowed else "d/own", "d/gone")
            MAKERS[kind]("d/theirs") if allowed else None
            os.lchown("d/theirs", *owner)
            with user(*caller):
                case.refused(number, os.rename, "d/theirs", "d/new")
            remove("d/new" if allowed else "d/theirs")
            remove("d/gone")
            os.rmdir("d")


@behaviour("users", "rename")
def rename_needs_both_directories(case: Case) -> None:
    for name, mode in (("from", 0o755), ("closed", 0o766), ("open", 0o777), ("other", 0o777)):
        os.mkdir(name)
        write(f"{name}/f", name.encode())
        os.chmod(name, mode)
    with untouched(case, "from", "closed", "open", "from/f", "open/f"), user(*ALICE):
        for old, new in (
            ("from/f", "open/new"),
            ("open/f", "from/new"),
            ("open/f", "from/f"),
            ("closed/f", "open/new"),
            ("open/f", "closed/new"),
        ):
            case.refused(errno.EACCES, os.rename, old, new)
    with user(*ALICE):
        case.done(os.rename, "open/f", "other/f")
    case.same(read("other/f"), b"open", "the content")


@behaviour("users", "rename")
def rename_of_another_s_directory(case: Case) -> None:
    """To move a directory elsewhere its `..` changes, which takes write permission on itself."""
    os.chmod(".", 0o777)
    os.mkdir("into")
    os.chmod("into", 0o777)
    os.mkdir("d")
    os.chmod("d", 0o755)
    with untouched(case, "d", "into"), user(*ALICE):
        case.refused(errno.EACCES, os.rename, "d", "into/d")
    with user(*ALICE):
        case.done(os.rename, "d", "e")
    os.chmod("e", 0o777)
    with user(*ALICE):
        case.done(os.rename, "e", "into/e")
    case.same(stat.S_ISDIR(os.lstat("into/e").st_mode), True, "whether it is there")

"""link(2): what may be linked, by whom, link counts and times."""

from __future__ import annotations

import errno
import os
import time

from conformance.case import AT_FDCWD, Case, behaviour, libc_call, user, write
from conformance.posix.support import (
    ALICE,
    BOB,
    MAKERS,
    give,
    links_of,
    times,
    untouched,
)


def _link(old: str, new: str) -> None:
    """link(2) as such: `os.link` follows a link in OLD."""
    libc_call("linkat", AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), 0)


@behaviour("users", "link")
def link_every_kind(case: Case) -> None:
    os.mkdir("d")
    for kind, make in MAKERS.items():
        if kind == "directory":
            continue
        old, new = f"d/{kind}", f"d/{kind}-2" if kind == "symlink" else f"{kind}-2"
        make(old)
        with times(case, {old: "c", os.path.dirname(new) or ".": "mc"}):
            _link(old, new)
        _link(new, f"{new}-3")
        case.same(links_of(old, new, f"{new}-3"), (3, 3, 3), "link counts")
        case.same(os.lstat(old).st_ino, os.lstat(new).st_ino, "the inode")
        os.lchown(new, 5, 6)
        case.same(os.lstat(f"{new}-3").st_uid, 5, "the owner under another name")
        with times(case, {old: "c", os.path.dirname(new) or ".": "mc"}):
            os.unlink(new)
        os.unlink(old)
        case.same(links_of(f"{new}-3"), (1,), "the link count at the end")
        os.unlink(f"{new}-3")
    case.same(links_of("d"), (2,), "the directory's link count")


@behaviour("users", "link")
def link_a_symbolic_link_into_another_directory(case: Case) -> None:
    os.mkdir("d")
    os.symlink("target", "l")
    _link("l", "d/l")
    case.same((os.readlink("l"), os.readlink("d/l")), ("target", "target"), "the targets")
    one = os.lstat("l").st_ino == os.lstat("d/l").st_ino
    found = "one inode" if one else "two inodes"
    case.differs("one symbolic link in two directories", found)
    time.sleep(0.11)
    case.same(links_of("l", "d/l"), (2, 2), "link counts")
    os.lchown("l", 5, 6)
    case.same(os.lstat("d/l").st_uid, 5, "the owner under the other name")
    os.link("d/l", "d/m", follow_symlinks=False)
    case.same(links_of("l", "d/l", "d/m"), (3, 3, 3), "link counts")
    os.unlink("d/m")
    case.same(links_of("l", "d/l"), (2, 2), "link counts")
    os.unlink("l")
    case.same(os.readlink("d/l"), "target", "the target under the other name")


@behaviour("users", "link")
def link_onto_what_is_there(case: Case) -> None:
    write("f")
    for kind, make in MAKERS.items():
        make(kind)
        with untouched(case, "f", kind):
            case.refused(errno.EEXIST, _link, "f", kind)
    case.refused(errno.EEXIST, _link, "f", "f")
    case.refused(errno.EEXIST, _link, "f", ".")
    case.refused(errno.ENOENT, _link, "f", "new/")
    case.refused(errno.ENOENT, _link, "missing", "file")
    case.same(links_of("f"), (1,), "the link count")


@behaviour("users", "link")
def link_to_directories(case: Case) -> None:
    os.mkdir("d")
    give("d", ALICE, 0o777)
    os.chmod(".", 0o777)
    with untouched(case, "d"):
        case.refused(errno.EPERM, _link, "d", "new")
        case.refused(errno.EPERM, _link, ".", "new")
        with user(*ALICE):
            case.refused(errno.EPERM, _link, "d", "new")
        case.refused(errno.EEXIST, _link, "d", "d")


@behaviour("users", "link")
def link_needs_both_directories(case: Case) -> None:
    for name, mode in (("from", 0o755), ("closed", 0o700), ("into", 0o755), ("open", 0o777)):
        os.mkdir(name)
        os.chmod(name, mode)
    for name in ("from/f", "closed/f"):
        write(name)
        give(name, ALICE, 0o644)
    with untouched(case, "from", "from/f", "closed", "into", "open"), user(*ALICE):
        case.refused(errno.EACCES, _link, "closed/f", "open/new")
        case.refused(errno.EACCES, _link, "from/f", "closed/new")
        case.refused(errno.EACCES, _link, "from/f", "into/new")
    with user(*ALICE):
        case.done(_link, "from/f", "open/new")
    case.same(links_of("from/f"), (2,), "the link count")


@behaviour("users", "link")
def link_in_a_sticky_directory(case: Case) -> None:
    """The sticky bit does not stop new names; the rules for removing them hold for each."""
    os.mkdir("d")
    os.chmod("d", 0o1777)
    write("d/f")
    give("d/f", ALICE, 0o666)
    with user(*ALICE):
        _link("d/f", "d/g")
    with user(*BOB):
        case.refused(errno.EPERM, os.unlink, "d/g")
    with user(*ALICE):
        case.done(os.unlink, "d/g")

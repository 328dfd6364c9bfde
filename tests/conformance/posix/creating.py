"""What open(O_CREAT), mkdir, mkfifo, mknod and symlink share: owner, mode, times, refusals."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable

from conformance.case import Case, behaviour, mode_of, opened_and_closed, umask, user, write
from conformance.posix.support import (
    ALICE,
    BOB,
    MAKERS,
    SHARED_GROUP,
    USERS,
    give,
    links_of,
    owner_of,
    remove,
    times,
    untouched,
)

Make = Callable[[str, int], object]

WITH_MODE: dict[str, tuple[Make, int]] = {
    "open": (lambda path, mode: opened_and_closed(path, os.O_CREAT | os.O_RDONLY, mode), 0o7777),
    "mkdir": (lambda path, mode: os.mkdir(path, mode), 0o1777),
    "mkfifo": (lambda path, mode: os.mkfifo(path, mode), 0o7777),
    "mknod": (lambda path, mode: os.mknod(path, stat.S_IFSOCK | mode), 0o7777),
}
"""Calls that take a mode, and the bits of it that they look at."""

ALL: dict[str, Make] = {
    **{name: make for name, (make, _) in WITH_MODE.items()},
    "symlink": lambda path, _: os.symlink("target", path),
}


@behaviour("users", *WITH_MODE)
def creating_applies_the_umask(case: Case) -> None:
    os.chmod(".", 0o777)
    for name, (make, taken) in WITH_MODE.items():
        for mode in (0o755, 0o151, 0o345, 0o501, 0o1777, 0):
            for mask in (0, 0o077, 0o070, 0o501, 0o777):
                with umask(mask), user(*ALICE):
                    make("new", mode)
                case.same(mode_of("new"), mode & taken & ~mask, f"{name} {mode:o} mask {mask:o}")
                remove("new")


@behaviour("users", *WITH_MODE)
def creating_with_set_id_bits(case: Case) -> None:
    for name, (make, taken) in WITH_MODE.items():
        with umask(0):
            make("new", 0o7777)
        case.same(mode_of("new"), 0o7777 & taken, f"the mode {name} gives")
        remove("new")


@behaviour("users", *ALL)
def creating_gives_it_to_the_caller(case: Case) -> None:
    os.mkdir("plain")
    os.mkdir("passing")
    give("plain", (0, SHARED_GROUP), 0o777)
    give("passing", (0, SHARED_GROUP), 0o2777)
    for name, make in ALL.items():
        for caller in USERS:
            with user(*caller):
                make("plain/new", 0o644)
                make("passing/new", 0o644)
            case.same(owner_of("plain/new"), caller, f"the owner {name} gives")
            wanted = (caller[0], SHARED_GROUP)
            case.same(owner_of("passing/new"), wanted, f"{name} in a set-gid directory")
            if name == "mkdir":
                case.same(mode_of("passing/new"), 0o2644, "a set-gid directory's directory")
            remove("plain/new")
            remove("passing/new")


@behaviour("users", "open", "mknod")
def creating_set_gid_in_a_directory_of_another_group(case: Case) -> None:
    os.mkdir("d")
    give("d", (0, SHARED_GROUP), 0o2777)
    with umask(0):
        for name in ("open", "mknod"):
            for groups, wanted in (((), 0o755), ((SHARED_GROUP,), 0o2755)):
                with user(*ALICE, groups):
                    ALL[name]("d/new", 0o2755)
                case.same(mode_of("d/new"), wanted, f"{name} set-gid, groups {groups}")
                remove("d/new")


@behaviour("users", *ALL)
def creating_moves_the_times(case: Case) -> None:
    os.mkdir("d")
    for name, make in ALL.items():
        before = time.time_ns()
        with times(case, {"d": "mc", ".": ""}):
            make("d/new", 0o644)
        status = os.lstat("d/new")
        stamps = {status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns}
        case.same(len(stamps), 1, f"the number of different times after {name}")
        case.true(-(10**8) < stamps.pop() - before < 10**10, f"{name} stamps it now")
        case.same(links_of("d"), (3 if name == "mkdir" else 2,), f"links of d after {name}")
        case.same(links_of("d/new"), (2 if name == "mkdir" else 1,), f"links {name} gives")
        remove("d/new")


@behaviour("users", *ALL)
def creating_what_is_there(case: Case) -> None:
    """EEXIST, whatever is there; also where the caller could not have made it."""
    calls: dict[str, Make] = {**ALL, "open": _exclusively}
    for kind, make in MAKERS.items():
        make(kind)
        for again in calls.values():
            with untouched(case, kind):
                case.refused(errno.EEXIST, again, kind, 0o644)
                with user(*BOB):
                    case.refused(errno.EEXIST, again, kind, 0o644)
    for name in ("mkdir", "mkfifo", "mknod", "symlink"):
        case.refused(errno.EEXIST, ALL[name], ".", 0o644)
        case.refused(errno.EEXIST, ALL[name], "..", 0o644)
        case.refused(errno.EEXIST, ALL[name], "directory/", 0o644)


def _exclusively(path: str, mode: int) -> None:
    opened_and_closed(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode)


@behaviour("users", *ALL)
def creating_with_a_slash_behind(case: Case) -> None:
    write("f")
    with untouched(case, "f"):
        case.refused(errno.EISDIR, ALL["open"], "new/", 0o644)
        for name in ("mkfifo", "mknod", "symlink"):
            case.refused(errno.ENOENT, ALL[name], "new/", 0o644)
        case.refused(errno.EEXIST, ALL["mkdir"], "f", 0o755)
        case.refused(errno.ENOTDIR, ALL["open"], "f/x/", 0o644)
    case.done(os.mkdir, "new//")


@behaviour("users", *ALL)
def creating_in_what_has_gone(case: Case) -> None:
    for name, make in ALL.items():
        os.mkdir("d")
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir("d")
            os.rmdir("../d")
            case.refused(errno.ENOENT, make, "new", 0o644)
        finally:
            os.fchdir(here)
            os.close(here)
        case.true(not os.path.lexists("d"), f"{name} did not bring the directory back")


@behaviour("users", "mknod")
def creating_devices_needs_privilege(case: Case) -> None:
    os.chmod(".", 0o777)
    number = os.makedev(1, 3)
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        for caller in USERS:
            with untouched(case), user(*caller):
                case.refused(errno.EPERM, os.mknod, "new", kind | 0o644, number)
        os.mknod("new", kind | 0o640, os.makedev(259, 1_000_000))
        status = os.lstat("new")
        found = (status.st_mode, os.major(status.st_rdev), os.minor(status.st_rdev))
        case.same(found, (kind | 0o640, 259, 1_000_000), "mode and number")
        os.unlink("new")
    case.refused(errno.EPERM, os.mknod, "new", stat.S_IFDIR | 0o755)
    case.refused(errno.EINVAL, os.mknod, "new", stat.S_IFLNK | 0o755)


@behaviour("users", "symlink")
def creating_links_of_every_length(case: Case) -> None:
    with untouched(case):
        case.refused(errno.ENOENT, os.symlink, "", "new")
        case.refused(errno.ENAMETOOLONG, os.symlink, "t" * 4096, "new")
    for length in (1, 255, 4095):
        os.symlink("t" * length, f"link-{length}")
        case.same(os.readlink(f"link-{length}"), "t" * length, "the target")
        case.same(os.lstat(f"link-{length}").st_size, length, "the size")
    os.symlink(b"\xff\xfe/\x80", b"bytes-\xff")
    case.same(os.readlink(b"bytes-\xff"), b"\xff\xfe/\x80", "a target of any bytes")


@behaviour("users", *ALL)
def creating_names_of_any_bytes(case: Case) -> None:
    for name, make in ALL.items():
        for raw in (b"\xff" * 255, b"\x80\xc0", b"a\nb", b"\xed\xa0\x80"):
            path = os.fsdecode(raw)
            make(path, 0o644)
            case.true(raw in os.listdir(b"."), f"{name} made {raw!r}")
            remove(path)

"""Behaviours that depend on who calls: owners, groups, permissions, set-id and sticky bits."""

from __future__ import annotations

import errno
import os
import stat

from conformance.case import (
    AT_EACCESS,
    AT_FDCWD,
    UTIME_NOW,
    Case,
    answer,
    behaviour,
    libc_call,
    mode_of,
    opened,
    opened_and_closed,
    read,
    umask,
    user,
    utimensat,
    write,
)

ALICE = (1501, 1601)
BOB = (1502, 1602)


def _owner(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_uid, status.st_gid


def _open_to_all() -> None:
    """Let everybody work in the current directory."""
    os.chmod(".", 0o777)


@behaviour("users")
def what_a_caller_makes_is_the_caller_s(case: Case) -> None:
    _open_to_all()
    with umask(0o022), user(*ALICE):
        write("f")
        os.mkdir("d")
        os.symlink("f", "l")
        os.mkfifo("p")
        os.mknod("s", stat.S_IFSOCK | 0o666)
        os.link("f", "h")
    for name in ("f", "d", "l", "p", "s", "h"):
        case.same(_owner(name), ALICE, f"the owner of {name}")


@behaviour("users")
def set_group_directories_pass_their_group_on(case: Case) -> None:
    os.mkdir("d")
    os.chown("d", 0, 1700)
    os.chmod("d", 0o2777)
    with umask(0o022), user(*ALICE):
        write("d/f")
        os.mkdir("d/e")
    case.same(_owner("d/f"), (ALICE[0], 1700), "the file's owner")
    case.same((_owner("d/e"), mode_of("d/e")), ((ALICE[0], 1700), 0o2755), "the directory's")


@behaviour("users")
def permissions_of_files(case: Case) -> None:
    _open_to_all()
    with umask(0), user(*ALICE):
        write("private", b"a", 0o600)
        write("shared", b"b", 0o644)
    with user(*BOB):
        case.refused(errno.EACCES, opened_and_closed, "private", os.O_RDONLY)
        case.same(read("shared"), b"b", "what everybody may read")
        case.refused(errno.EACCES, opened_and_closed, "shared", os.O_WRONLY)
        case.refused(errno.EACCES, os.truncate, "shared", 0)
        case.refused(errno.EPERM, os.chmod, "shared", 0o777)
        case.refused(errno.EPERM, os.chown, "shared", *BOB)
        case.refused(errno.EPERM, utimensat, "shared", (1, 0), (1, 0))
        case.refused(errno.EACCES, os.setxattr, "shared", "user.a", b"1")


@behaviour("users")
def permissions_of_directories(case: Case) -> None:
    os.mkdir("closed", 0o700)
    write("closed/f")
    os.mkdir("listed", 0o755)
    with user(*ALICE):
        case.refused(errno.EACCES, os.listdir, "closed")
        case.refused(errno.EACCES, os.stat, "closed/f")
        case.refused(errno.EACCES, write, "listed/f")
        case.refused(errno.EACCES, os.mkdir, "listed/d")
        case.refused(errno.EACCES, os.rmdir, "listed")


@behaviour("users")
def supplementary_groups_count(case: Case) -> None:
    write("f", b"x", 0o640)
    os.chown("f", 0, 1800)
    os.mkdir("d")
    os.chown("d", 0, 1800)
    os.chmod("d", 0o770)
    with user(*ALICE):
        case.refused(errno.EACCES, opened_and_closed, "f", os.O_RDONLY)
    with user(*ALICE, (1800, 1801)):
        case.same(read("f"), b"x", "what the group may read")
        case.done(write, "d/g")
    case.same(_owner("d/g"), ALICE, "the owner")


@behaviour("users")
def sticky_directories(case: Case) -> None:
    os.chmod(".", 0o1777)
    with user(*ALICE):
        write("f")
    with user(*BOB):
        write("own")
        case.refused(errno.EPERM, os.unlink, "f")
        case.refused(errno.EPERM, os.rename, "f", "g")
        case.refused(errno.EPERM, os.rename, "own", "f")
        case.done(os.unlink, "own")


@behaviour("users")
def writing_clears_set_id_bits(case: Case) -> None:
    for name in ("written", "truncated", "emptied"):
        write(name, b"abc")
        os.chmod(name, 0o6777)
    with user(*ALICE):
        with opened("written", os.O_WRONLY) as fd:
            os.write(fd, b"x")
        os.truncate("truncated", 1)
        opened_and_closed("emptied", os.O_WRONLY | os.O_TRUNC)
    modes = {name: mode_of(name) for name in os.listdir(".")}
    case.same(modes, dict.fromkeys(modes, 0o777), "the modes")


@behaviour("users")
def the_superuser_s_writing_leaves_set_id_bits(case: Case) -> None:
    write("f", b"abc")
    os.chmod("f", 0o6777)
    with opened("f", os.O_WRONLY) as fd:
        os.write(fd, b"x")
    case.same(mode_of("f"), 0o6777, "the mode")


@behaviour("users")
def owners_may_not_give_away(case: Case) -> None:
    _open_to_all()
    with user(*ALICE, (1801,)):
        write("f")
        case.refused(errno.EPERM, os.chown, "f", BOB[0], -1)
        case.refused(errno.EPERM, os.chown, "f", -1, BOB[1])
        case.done(os.chown, "f", -1, 1801)
        os.chmod("f", 0o2755)
        case.same(mode_of("f"), 0o2755, "the mode: 1801 is a group of hers")
    os.chown("f", -1, 1999)
    with user(*ALICE):
        os.chmod("f", 0o2755)
        case.same(mode_of("f"), 0o755, "the mode: 1999 is no group of hers")


@behaviour("users")
def writers_may_touch(case: Case) -> None:
    write("f")
    os.chmod("f", 0o666)
    utimensat("f", (1, 0), (1, 0))
    with user(*ALICE):
        case.refused(errno.EPERM, utimensat, "f", (1, 0), (2, 0))
        case.done(utimensat, "f", (0, UTIME_NOW), (0, UTIME_NOW))
    case.true(os.stat("f").st_mtime > 1_000_000, "the mtime is now")


@behaviour("users", "setxattr")
def special_attributes_need_privilege(case: Case) -> None:
    _open_to_all()
    with user(*ALICE):
        write("f")
        case.refused(errno.EPERM, os.setxattr, "f", "trusted.k", b"1")
        case.done(os.setxattr, "f", "user.k", b"1")
        case.same(answer(os.mknod, "dev", stat.S_IFCHR | 0o666, os.makedev(1, 3)), errno.EPERM)


@behaviour("users", "access")
def access_checks_the_caller(case: Case) -> None:
    write("f", b"", 0o640)
    os.chown("f", ALICE[0], BOB[1])
    r_ok, w_ok, effective = os.R_OK, os.W_OK, AT_EACCESS
    check = ("faccessat", AT_FDCWD, b"f")
    with user(*ALICE):
        case.done(libc_call, *check, r_ok | w_ok, effective)
    with user(*BOB):
        case.done(libc_call, *check, r_ok, effective)
        case.refused(errno.EACCES, libc_call, *check, w_ok, effective)
    with user(1999, 1999):
        case.refused(errno.EACCES, libc_call, *check, r_ok, effective)

"""Behaviours of attributes: modes, owners, times, extended attributes, access, statvfs."""

from __future__ import annotations

import errno
import os
import stat
import struct
import time

from conformance.case import (
    AT_SYMLINK_NOFOLLOW,
    UTIME_NOW,
    UTIME_OMIT,
    Case,
    behaviour,
    libc_call,
    mode_of,
    opened,
    read,
    umask,
    utimensat,
    write,
)

OLD = (1_000_000_000, 123_456_789)
OLD_NS = OLD[0] * 1_000_000_000 + OLD[1]


@behaviour()
def modes_and_the_umask(case: Case) -> None:
    with umask(0o027):
        write("f", mode=0o666)
        os.mkdir("d", 0o777)
        os.mkfifo("p", 0o666)
    case.same((mode_of("f"), mode_of("d"), mode_of("p")), (0o640, 0o750, 0o640), "the modes")


@behaviour()
def changing_modes(case: Case) -> None:
    write("f")
    os.mkdir("d")
    for mode in (0, 0o777, 0o4755, 0o2750, 0o1777, 0o644):
        os.chmod("f", mode)
        case.same(mode_of("f"), mode, "the file's mode")
        os.chmod("d", mode)
        case.same(mode_of("d"), mode, "the directory's mode")
    with opened("f") as fd:
        os.fchmod(fd, 0o600)
    case.same(mode_of("f"), 0o600, "the mode, set by handle")
    case.refused(errno.ENOENT, os.chmod, "missing", 0)


@behaviour()
def chmod_follows_links(case: Case) -> None:
    write("f", mode=0o600)
    os.symlink("f", "l")
    os.chmod("l", 0o644)
    case.same((mode_of("f"), mode_of("l")), (0o644, 0o777), "the modes")


@behaviour()
def changing_owners(case: Case) -> None:
    write("f")
    os.symlink("f", "l")
    os.chown("f", 11, 12)
    os.chown("f", -1, 13)
    os.chown("f", 14, -1)
    os.lchown("l", 21, 22)
    found = [(os.lstat(name).st_uid, os.lstat(name).st_gid) for name in ("f", "l")]
    case.same(found, [(14, 13), (21, 22)], "the owners")


@behaviour()
def chown_clears_set_id_bits(case: Case) -> None:
    write("f")
    os.chmod("f", 0o6755)
    os.chown("f", 5, 6)
    case.same(mode_of("f"), 0o755, "the mode")


@behaviour()
def setting_times(case: Case) -> None:
    write("f")
    os.symlink("f", "l")
    utimensat("f", (1, 2), OLD)
    status = os.stat("f")
    case.same((status.st_atime_ns, status.st_mtime_ns), (1_000_000_002, OLD_NS), "the times")
    utimensat("l", (3, 0), (4, 0), AT_SYMLINK_NOFOLLOW)
    case.same(int(os.lstat("l").st_mtime), 4, "the link's own time")
    case.same(os.stat("f").st_mtime_ns, OLD_NS, "the file's time")
    utimensat("f", (-1, 0), (-1, 500_000_000))
    case.same(os.stat("f").st_mtime_ns, -500_000_000, "a time before 1970")


@behaviour()
def omitting_times(case: Case) -> None:
    write("f")
    utimensat("f", OLD, OLD)
    utimensat("f", (7, 0), (0, UTIME_OMIT))
    case.same(os.stat("f").st_mtime_ns, OLD_NS, "the mtime that was left out")
    utimensat("f", (0, UTIME_OMIT), (8, 0))
    case.same((os.stat("f").st_atime, os.stat("f").st_mtime), (7, 8), "the times")
    case.done(utimensat, "f", (0, UTIME_OMIT), (0, UTIME_OMIT))


@behaviour()
def setting_times_to_now(case: Case) -> None:
    write("f")
    utimensat("f", OLD, OLD)
    utimensat("f", (0, UTIME_OMIT), (0, UTIME_NOW))
    status = os.stat("f")
    case.same(status.st_atime_ns, OLD_NS, "the atime that was left out")
    case.true(abs(status.st_mtime - time.time()) < 5, "the mtime is now")
    utimensat("f", OLD, OLD)
    os.utime("f")
    case.true(abs(os.stat("f").st_atime - time.time()) < 5, "the atime is now")


@behaviour()
def changes_move_the_times(case: Case) -> None:
    write("f")
    os.mkdir("d")
    for path in ("f", "d"):
        utimensat(path, OLD, OLD)
    with opened("f", os.O_WRONLY) as fd:
        os.write(fd, b"x")
    write("d/new")
    for path in ("f", "d"):
        case.true(os.stat(path).st_mtime > OLD[0] + 1, f"the mtime of {path} moved")
    before = os.stat("f").st_ctime_ns
    time.sleep(0.02)  # longer than a tick: ctime is no finer than that
    os.chmod("f", 0o600)
    case.true(os.stat("f").st_ctime_ns > before, "the ctime moved with the mode")


@behaviour()
def truncating_to_the_same_size_moves_the_mtime(case: Case) -> None:
    write("f", b"abc")
    utimensat("f", OLD, OLD)
    with opened("f", os.O_RDWR) as fd:
        os.ftruncate(fd, 3)
    case.true(os.stat("f").st_mtime > OLD[0] + 1, "the mtime moved")


@behaviour()
def times_survive_a_rename(case: Case) -> None:
    write("f")
    utimensat("f", OLD, OLD)
    os.rename("f", "g")
    case.same(os.stat("g").st_mtime_ns, OLD_NS, "the mtime")


# -- extended attributes ------------------------------------------------------------------------


@behaviour("nothing", "getxattr", "listxattr", "removexattr", "setxattr")
def extended_attributes(case: Case) -> None:
    write("f")
    os.mkdir("d")
    for path in ("f", "d"):
        os.setxattr(path, "user.a", b"1")
        os.setxattr(path, "user.b", b"")
        os.setxattr(path, "user.bytes", bytes(range(256)))
        case.same(sorted(os.listxattr(path)), ["user.a", "user.b", "user.bytes"], "the names")
        case.same(os.getxattr(path, "user.a"), b"1", "a value")
        case.same(os.getxattr(path, "user.b"), b"", "an empty value")
        case.same(os.getxattr(path, "user.bytes"), bytes(range(256)), "a value of all bytes")
        os.removexattr(path, "user.a")
        case.same(sorted(os.listxattr(path)), ["user.b", "user.bytes"], "the names")
        case.refused(errno.ENODATA, os.getxattr, path, "user.a")
        case.refused(errno.ENODATA, os.removexattr, path, "user.a")


@behaviour("nothing", "setxattr")
def extended_attributes_made_or_replaced(case: Case) -> None:
    write("f")
    case.refused(errno.ENODATA, os.setxattr, "f", "user.a", b"1", os.XATTR_REPLACE)
    case.done(os.setxattr, "f", "user.a", b"1", os.XATTR_CREATE)
    case.refused(errno.EEXIST, os.setxattr, "f", "user.a", b"2", os.XATTR_CREATE)
    case.done(os.setxattr, "f", "user.a", b"3", os.XATTR_REPLACE)
    case.same(os.getxattr("f", "user.a"), b"3", "the value")


@behaviour("nothing", "getxattr", "setxattr")
def extended_attributes_refused(case: Case) -> None:
    write("f")
    os.mkfifo("p")
    os.symlink("f", "l")
    case.refused(errno.EOPNOTSUPP, os.setxattr, "f", "nonsense", b"1")
    case.refused(errno.ERANGE, os.setxattr, "f", "user." + "n" * 251, b"1")
    case.refused(errno.E2BIG, os.setxattr, "f", "user.a", bytes(65537))
    case.refused(errno.EPERM, os.setxattr, "p", "user.a", b"1")
    case.refused(errno.EPERM, lambda: os.setxattr("l", "user.a", b"1", follow_symlinks=False))
    case.refused(errno.ENODATA, os.getxattr, "p", "user.a")


@behaviour("nothing", "getxattr", "setxattr")
def extended_attributes_of_other_spaces(case: Case) -> None:
    write("f")
    os.mkfifo("p")
    for path in ("f", "p"):
        os.setxattr(path, "trusted.k", b"t")
        case.same(os.getxattr(path, "trusted.k"), b"t", "a trusted value")
        case.true("trusted.k" in os.listxattr(path), "it is listed")


@behaviour("nothing", "setxattr")
def attribute_too_large_for_the_host(case: Case) -> None:
    write("f")
    case.refused(errno.ENOSPC, os.setxattr, "f", "user.a", bytes(60_000))


@behaviour("nothing", "getxattr", "setxattr")
def access_control_lists(case: Case) -> None:
    # Version 2, then rw for the owner, r for user 7, r for the group, the mask, none for others.
    rows = ((1, 6, -1), (2, 4, 7), (4, 4, -1), (16, 4, -1), (32, 0, -1))
    acl = b"\2\0\0\0" + b"".join(struct.pack("<HHi", *row) for row in rows)
    write("f")
    case.done(os.setxattr, "f", "system.posix_acl_access", acl)
    case.same(os.getxattr("f", "system.posix_acl_access"), acl, "the list")
    case.same(mode_of("f"), 0o640, "the mode that goes with it")
    os.chmod("f", 0o600)
    case.true(os.getxattr("f", "system.posix_acl_access") != acl, "chmod changes the mask")


# -- access, statvfs ----------------------------------------------------------------------------


@behaviour("nothing", "access")
def access_for_the_owner_of_everything(case: Case) -> None:
    write("f", mode=0)
    case.done(_access, "f", os.R_OK | os.W_OK)
    case.refused(errno.EACCES, _access, "f", os.X_OK)
    os.chmod("f", 0o100)
    case.done(_access, "f", os.X_OK)
    case.refused(errno.ENOENT, _access, "missing", os.F_OK)
    os.symlink("missing", "l")
    case.refused(errno.ENOENT, _access, "l", os.F_OK)


def _access(path: str, mode: int) -> None:
    """access(2) as a call that raises: `os.access` keeps the errno to itself."""
    libc_call("access", os.fsencode(path), mode)


@behaviour("nothing", "statvfs")
def file_system_figures(case: Case) -> None:
    figures = os.statvfs(".")
    case.same(figures.f_namemax, 255, "the longest name")
    case.true(figures.f_blocks > 0 and figures.f_bfree <= figures.f_blocks, "blocks make sense")
    case.true(figures.f_bsize > 0 and figures.f_frsize > 0, "block sizes make sense")
    case.same(figures.f_flag & os.ST_RDONLY, 0, "the read-only flag")


@behaviour("nothing", "stat")
def kinds_and_sizes(case: Case) -> None:
    write("f", b"12345")
    os.mkdir("d")
    case.same(os.stat("f").st_size, 5, "the size")
    case.true(os.stat("f").st_blocks > 0, "a file with content takes blocks")
    case.same(stat.S_IFMT(os.stat("d").st_mode), stat.S_IFDIR, "the type")
    case.true(0 < os.stat("f").st_ino < 1 << 53, "the inode number fits a JavaScript number")
    case.same(read("f"), b"12345", "the content")

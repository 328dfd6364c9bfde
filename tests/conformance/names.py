"""Behaviours of names: making, linking, moving and removing them, and what they may consist of."""

from __future__ import annotations

import errno
import os
import stat

from conformance.case import (
    AT_FDCWD,
    AT_SYMLINK_FOLLOW,
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    RENAME_WHITEOUT,
    Case,
    behaviour,
    libc_call,
    opened,
    opened_and_closed,
    read,
    rename2,
    write,
)


def _kind(path: str) -> int:
    return stat.S_IFMT(os.lstat(path).st_mode)


# -- what names may be --------------------------------------------------------------------------


@behaviour()
def longest_names(case: Case) -> None:
    name = "n" * 255
    write(name, b"x")
    case.same(os.listdir("."), [name], "the listing")
    case.same(read(name), b"x", "the content")
    os.mkdir("d")
    os.rename(name, "d/" + name)
    os.symlink("t", name)
    case.same(os.readlink(name), "t", "the link")


@behaviour()
def names_that_are_too_long(case: Case) -> None:
    name, number = "n" * 256, errno.ENAMETOOLONG
    write("f")
    case.refused(number, os.stat, name)
    case.refused(number, opened_and_closed, name, os.O_RDONLY | os.O_CREAT)
    case.refused(number, os.mkdir, name)
    case.refused(number, os.mkfifo, name)
    case.refused(number, os.symlink, "t", name)
    case.refused(number, os.link, "f", name)
    case.refused(number, os.rename, "f", name)
    case.refused(number, os.unlink, name)
    case.refused(number, os.rmdir, name)
    case.refused(number, os.stat, "n" * 5000)


@behaviour()
def names_are_bytes(case: Case) -> None:
    names = [b"\xff\xfe", b"latin-\xe9", b"\xed\xa0\x80", b"new\nline", b" ", b"-", b"\\", b"\x01"]
    names += [b"a:b", b"*", "名前".encode(), b"...", b"~", b"%2F"]
    for number, name in enumerate(names):
        write(name, b"%d" % number)
    case.same(sorted(os.listdir(b".")), sorted(names), "the listing")
    for number, name in enumerate(names):
        case.same(read(name), b"%d" % number, f"the content of {name!r}")
        os.rename(name, name + b"2")
        os.unlink(name + b"2")
    case.same(os.listdir("."), [], "the listing at the end")


@behaviour()
def names_that_differ_only_in_form(case: Case) -> None:
    """No folding of case and no normalising of Unicode."""
    names = ["a", "A", "\u00e9", "e\u0301"]
    for name in names:
        write(name, name.encode())
    case.same(sorted(os.listdir(".")), sorted(names), "the listing")
    for name in names:
        case.same(read(name), name.encode(), f"the content of {name!r}")


@behaviour()
def dots_and_repeated_slashes(case: Case) -> None:
    os.makedirs("d/e")
    write("d/f", b"x")
    for path in ("d/./f", "d//f", "d/e/../f", "./d/e/.././/f"):
        case.same(read(path), b"x", f"the content of {path}")
    case.same(os.stat("d/e/..").st_ino, os.stat("d").st_ino, "the inode of d/e/..")
    case.refused(errno.EINVAL, os.rmdir, "d/.")
    case.refused(errno.ENOTEMPTY, os.rmdir, "d/..")
    case.refused(errno.ENOTDIR, os.stat, "d/f/..")


# -- directories and special files --------------------------------------------------------------


@behaviour()
def making_directories(case: Case) -> None:
    os.mkdir("d")
    case.same(_kind("d"), stat.S_IFDIR, "the type")
    case.same(os.stat("d").st_nlink, 2, "the link count")
    os.mkdir("d/e/")
    case.same(os.stat("d").st_nlink, 3, "the link count with a directory inside")
    case.refused(errno.EEXIST, os.mkdir, "d")
    case.refused(errno.ENOENT, os.mkdir, "missing/d")
    os.symlink("nowhere", "l")
    case.refused(errno.EEXIST, os.mkdir, "l")


@behaviour()
def removing_directories(case: Case) -> None:
    os.makedirs("d/e")
    write("f")
    os.symlink("d", "l")
    case.refused(errno.ENOTEMPTY, os.rmdir, "d")
    case.refused(errno.ENOTDIR, os.rmdir, "f")
    case.refused(errno.ENOTDIR, os.rmdir, "l")
    case.refused(errno.ENOENT, os.rmdir, "missing")
    case.done(os.rmdir, "d/e")
    case.done(os.rmdir, "d")
    case.refused(errno.ENOENT, os.stat, "d")


@behaviour()
def removing_files(case: Case) -> None:
    os.mkdir("d")
    write("f")
    os.symlink("f", "l")
    case.done(os.unlink, "l")
    case.same(_kind("f"), stat.S_IFREG, "what the link pointed to")
    case.refused(errno.EISDIR, os.unlink, "d")
    case.done(os.unlink, "f")
    case.refused(errno.ENOENT, os.unlink, "f")
    case.refused(errno.ENOENT, os.unlink, "missing/f")


@behaviour()
def making_special_files(case: Case) -> None:
    for name, kind in (("p", stat.S_IFIFO), ("s", stat.S_IFSOCK), ("f", stat.S_IFREG)):
        os.mknod(name, kind | 0o640)
        case.same(os.lstat(name).st_mode, kind | 0o640, f"the mode of {name}")
        case.refused(errno.EEXIST, os.mknod, name, kind | 0o640)
    case.refused(errno.EPERM, os.mknod, "d", stat.S_IFDIR | 0o755)


@behaviour()
def in_a_removed_directory(case: Case) -> None:
    os.mkdir("d")
    with opened("d") as fd:
        os.rmdir("d")
        case.refused(errno.ENOENT, lambda: os.open("f", os.O_CREAT | os.O_RDWR, dir_fd=fd))
        case.refused(errno.ENOENT, lambda: os.mkdir("e", dir_fd=fd))
        case.same(os.fstat(fd).st_nlink, 0, "the link count")
        os.mkdir("d")
        write("d/f")
        case.refused(errno.ENOENT, lambda: os.stat("f", dir_fd=fd))


# -- hard links ---------------------------------------------------------------------------------


@behaviour()
def hard_links_are_one_inode(case: Case) -> None:
    write("a", b"one")
    os.mkdir("d")
    os.link("a", "b")
    os.link("b", "d/c")
    numbers = {os.stat(name).st_ino for name in ("a", "b", "d/c")}
    case.same(len(numbers), 1, "how many inode numbers three names have")
    case.same(os.stat("a").st_nlink, 3, "the link count")
    write("d/c", b"two")
    case.same(read("a"), b"two", "what another name reads")
    os.unlink("a")
    case.same(os.stat("b").st_nlink, 2, "the link count after removing the first name")
    os.unlink("b")
    case.same(read("d/c"), b"two", "the content by the last name")
    case.same(os.stat("d/c").st_nlink, 1, "the link count of the last name")


@behaviour()
def a_change_shows_under_all_names(case: Case) -> None:
    write("a", b"x")
    os.link("a", "b")
    os.chmod("a", 0o600)
    case.same(os.stat("b").st_mode & 0o777, 0o600, "the mode by the other name")
    os.truncate("b", 5)
    case.same(os.stat("a").st_size, 5, "the size by the other name")
    os.setxattr("a", "user.k", b"v")
    case.same(os.getxattr("b", "user.k"), b"v", "the attribute by the other name")


@behaviour()
def linking_refused(case: Case) -> None:
    write("f")
    os.mkdir("d")
    case.refused(errno.EEXIST, os.link, "f", "d")
    case.refused(errno.EEXIST, os.link, "f", "f")
    case.refused(errno.ENOENT, os.link, "missing", "x")
    case.refused(errno.ENOENT, os.link, "f", "missing/x")
    case.refused(errno.EPERM, os.link, "d", "x")


@behaviour("nothing", "link")
def linking_a_symbolic_link(case: Case) -> None:
    write("f")
    os.symlink("f", "l")
    os.link("l", "m", follow_symlinks=False)
    case.same(_kind("m"), stat.S_IFLNK, "the type of the new name")
    case.same(os.readlink("m"), "f", "what it says")
    case.same(os.lstat("m").st_nlink, 2, "the link count")


@behaviour()
def linking_what_has_no_name_left(case: Case) -> None:
    write("f")
    with opened("f") as fd:
        os.unlink("f")
        link = ("linkat", AT_FDCWD, b"/proc/self/fd/%d" % fd, AT_FDCWD, b"g", AT_SYMLINK_FOLLOW)
        case.refused(errno.ENOENT, libc_call, *link)


# -- symbolic links -----------------------------------------------------------------------------


@behaviour("nothing", "readlink")
def symbolic_links(case: Case) -> None:
    for number, target in enumerate((b"a", b"d/e", b"\xff", b"with space/", b"./x//y", b"t" * 255)):
        name = b"l%d" % number
        os.symlink(target, name)
        case.same(os.readlink(name), target, "the target")
        case.same(os.lstat(name).st_size, len(target), "the size")
        case.same(stat.S_IFMT(os.lstat(name).st_mode), stat.S_IFLNK, "the type")
    case.refused(errno.EEXIST, os.symlink, b"other", b"l0")
    case.refused(errno.ENOENT, os.symlink, b"", b"new")
    case.refused(errno.EINVAL, os.readlink, ".")


@behaviour("nothing", "readlink")
def longest_link_target(case: Case) -> None:
    target = "t" * 4095
    os.symlink(target, "l")
    case.same(os.readlink("l"), target, "the target")
    case.refused(errno.ENAMETOOLONG, os.symlink, target + "t", "m")


@behaviour()
def following_symbolic_links(case: Case) -> None:
    os.mkdir("d")
    write("d/f", b"x")
    os.symlink("d", "l")
    os.symlink("l/f", "m")
    os.symlink("n2", "n1")
    os.symlink("n1", "n2")
    case.same(read("m"), b"x", "the content through two links")
    case.same(sorted(os.listdir("l")), ["f"], "the listing through a link")
    case.refused(errno.ELOOP, os.stat, "n1")
    case.refused(errno.ELOOP, opened_and_closed, "n1", os.O_CREAT | os.O_WRONLY)
    case.done(os.lstat, "n1")


@behaviour()
def links_up_and_back_down(case: Case) -> None:
    os.makedirs("d/e")
    write("f", b"x")
    os.symlink("../../f", "d/e/up")
    os.symlink("e/../../f", "d/back")
    case.same(read("d/e/up"), b"x", "the content through ../..")
    case.same(read("d/back"), b"x", "the content through e/../..")
    case.same(os.readlink("d/e/up"), "../../f", "a target that stays inside")
    case.same(os.readlink("d/back"), "e/../../f", "another that stays inside")


# -- rename -------------------------------------------------------------------------------------


@behaviour()
def rename_moves(case: Case) -> None:
    write("a", b"1")
    os.mkdir("d")
    number = os.stat("a").st_ino
    os.rename("a", "d/b")
    case.refused(errno.ENOENT, os.stat, "a")
    case.same((os.stat("d/b").st_ino, read("d/b")), (number, b"1"), "inode and content")


@behaviour()
def rename_replaces(case: Case) -> None:
    write("a", b"1")
    write("b", b"2")
    os.link("b", "c")
    os.rename("a", "b")
    case.same(read("b"), b"1", "the content")
    case.same(os.stat("c").st_nlink, 1, "the replaced file's link count")
    os.mkdir("d")
    os.mkdir("e")
    os.mkdir("d/inside")
    case.done(os.rename, "d", "e")
    case.same(os.listdir("e"), ["inside"], "the listing of the directory that came")


@behaviour()
def rename_refused(case: Case) -> None:
    write("f")
    os.makedirs("d/e")
    os.mkdir("g")
    case.refused(errno.ENOENT, os.rename, "missing", "x")
    case.refused(errno.ENOENT, os.rename, "f", "missing/x")
    case.refused(errno.EISDIR, os.rename, "f", "d")
    case.refused(errno.ENOTDIR, os.rename, "d", "f")
    case.refused(errno.ENOTEMPTY, os.rename, "g", "d")
    case.refused(errno.EINVAL, os.rename, "d", "d/e/x")
    case.refused(errno.ENOTEMPTY, os.rename, "d/e", "d")
    case.refused(errno.ENOTDIR, os.rename, "f", "new/")
    case.refused(errno.EBUSY, os.rename, ".", "x")


@behaviour()
def rename_between_names_of_one_file(case: Case) -> None:
    write("a")
    os.link("a", "b")
    case.done(os.rename, "a", "b")
    case.same(sorted(os.listdir(".")), ["a", "b"], "the listing: rename(2) leaves both")
    case.done(os.rename, "a", "a")


@behaviour()
def rename_of_a_symbolic_link(case: Case) -> None:
    write("f", b"x")
    os.symlink("f", "l")
    os.rename("l", "m")
    case.same(os.readlink("m"), "f", "the moved link")
    write("g")
    os.rename("g", "m")
    case.same(_kind("m"), stat.S_IFREG, "the type of what replaced the link")
    case.same(read("f"), b"x", "what the link pointed to")


@behaviour()
def rename_of_a_tree(case: Case) -> None:
    os.makedirs("d/e")
    write("d/e/f", b"x")
    os.mkdir("n")
    with opened("d/e") as fd:
        os.rename("d", "n/d")
        case.same(read("n/d/e/f"), b"x", "the content")
        case.same(os.listdir(fd), ["f"], "the listing by a handle opened before")
        case.same(os.stat("..", dir_fd=fd).st_ino, os.stat("n/d").st_ino, "its parent")
        with opened("n/d/e/f", os.O_RDONLY) as inside:
            case.same(os.read(inside, 9), b"x", "the content again")
    case.same((os.stat("n").st_nlink, os.stat(".").st_nlink), (3, 3), "the link counts")


@behaviour("nothing", "rename")
def rename_without_replacing(case: Case) -> None:
    write("a", b"1")
    write("b", b"2")
    case.refused(errno.EEXIST, rename2, "a", "b", RENAME_NOREPLACE)
    case.same((read("a"), read("b")), (b"1", b"2"), "the contents")
    case.done(rename2, "a", "c", RENAME_NOREPLACE)
    case.refused(errno.ENOENT, rename2, "a", "x", RENAME_NOREPLACE)


@behaviour("nothing", "rename")
def rename_exchanging(case: Case) -> None:
    write("a", b"1")
    os.makedirs("d/e")
    write("d/e/f", b"2")
    case.done(rename2, "a", "d/e", RENAME_EXCHANGE)
    case.same((read("d/e"), read("a/f")), (b"1", b"2"), "the contents")
    case.refused(errno.ENOENT, rename2, "a", "missing", RENAME_EXCHANGE)
    case.refused(errno.EINVAL, rename2, "a", "d/e", RENAME_EXCHANGE | RENAME_NOREPLACE)
    case.refused(errno.EINVAL, rename2, "d", "d/e", RENAME_EXCHANGE)
    write("g")
    case.done(rename2, "g", "d/e", RENAME_EXCHANGE)
    case.same(read("g"), b"1", "the content that came back")


@behaviour("nothing", "rename")
def rename_leaving_a_whiteout(case: Case) -> None:
    write("a")
    case.excepted("RENAME_WHITEOUT", rename2, "a", "b", RENAME_WHITEOUT)

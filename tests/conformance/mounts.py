"""Behaviours of the nested layout (layout.py): mount points, masks, read-only and synthetic
directories. The current directory is the root of the tree, shared by all of them: whatever one
makes has a name of its own, or goes again."""

from __future__ import annotations

import errno
import os
import stat

from conformance.case import (
    RENAME_EXCHANGE,
    RENAME_NOREPLACE,
    Case,
    behaviour,
    libc_call,
    mode_of,
    opened,
    opened_and_closed,
    read,
    rename2,
    utimensat,
    write,
)
from conformance.directories import entries_of

MOUNT_POINTS = ("lib", "again", "area/data", "area/data/inner", "syn/thetic/deep")
DIRECTORY, FILE = 4, 8
TOO_LONG = "n" * 256


# -- what is shown ------------------------------------------------------------------------------


@behaviour("layout", "readdir")
def listings_hold_mount_points_once(case: Case) -> None:
    wanted = {
        "area": [("data", DIRECTORY), ("link", 10), ("note", FILE), ("plain", FILE)],
        "area/data": [("d", FILE), ("inner", DIRECTORY)],
        "area/data/inner": [("i", FILE), ("scratch", DIRECTORY), ("twin", FILE)],
        "syn": [("thetic", DIRECTORY)],
        "syn/thetic": [("deep", DIRECTORY)],
        "syn/thetic/deep": [("p", FILE)],
        "lib": [("link", 10), ("one", FILE), ("sub", DIRECTORY)],
    }
    for path, names in wanted.items():
        found = sorted((entry.name.decode(), entry.kind) for entry in entries_of(path))
        case.same(found, [(".", DIRECTORY), ("..", DIRECTORY), *names], f"the listing of {path}")
    case.same(sorted(os.listdir(".")), ["a", "again", "alias", "area", "lib", "syn"], "of /")


@behaviour("layout")
def masked_names_are_nowhere(case: Case) -> None:
    os.symlink("lib/hidden", "to-hidden")
    masked = [f"{path}/hidden" for path in ("lib", "again", "area/data", "area/data/inner")]
    for path in (*masked, "to-hidden", "area/../lib/hidden", "syn/thetic/deep/../../../lib/hidden"):
        case.refused(errno.ENOENT, os.stat, path)
        case.refused(errno.ENOENT, opened_and_closed, path, os.O_RDONLY)
    with opened("area") as fd:
        case.refused(errno.ENOENT, lambda: os.stat("data/hidden", dir_fd=fd))
        case.refused(errno.ENOENT, lambda: os.stat("../lib/hidden", dir_fd=fd))
    case.refused(errno.ENOENT, os.link, "lib/hidden", "got")
    case.refused(errno.ENOENT, os.rename, "area/data/hidden", "area/data/got")
    case.same(read("area/note"), b"a note", "the file that masks another")
    os.unlink("to-hidden")


@behaviour("layout")
def every_way_leads_to_one_object(case: Case) -> None:
    number = os.stat("lib/one").st_ino
    ways = ["lib/./one", "area/../lib/one", "lib/sub/../one", "syn/thetic/deep/../../../lib/one"]
    ways += ["area/data/inner/../../../lib/one", "lib/link", "lib//one"]
    for path in ways:
        case.same(os.stat(path).st_ino, number, f"the inode number of {path}")
        case.same(read(path), b"lib one", f"the content of {path}")
    with opened(".") as root, opened("lib") as lib, opened("area/data/inner") as inner:
        case.same(os.stat("lib/one", dir_fd=root).st_ino, number, "the number, from the root")
        case.same(os.stat("one", dir_fd=lib).st_ino, number, "the number, from lib")
        case.same(os.stat("../../../lib/one", dir_fd=inner).st_ino, number, "from far away")


@behaviour("layout")
def parents_of_mount_points(case: Case) -> None:
    for path in MOUNT_POINTS:
        parent = os.path.dirname(path) or "."
        case.same(os.stat(f"{path}/..").st_ino, os.stat(parent).st_ino, f"the parent of {path}")
        above = [entry.number for entry in entries_of(path) if entry.name == b".."]
        case.same(len(above), 1, f"how many `..` {path} lists")


@behaviour("layout", "stat")
def names_of_one_inode_in_two_sources(case: Case) -> None:
    one, two = os.stat("area/data/d"), os.stat("area/data/inner/twin")
    case.same((one.st_ino, one.st_nlink), (two.st_ino, 2), "inode number and link count")
    os.truncate("area/data/d", 0)
    case.same(os.stat("area/data/inner/twin").st_size, 0, "the size by the other name")
    write("area/data/inner/twin", b"data")
    case.same(read("again/d"), b"data", "the content by a third name")


@behaviour("layout", "stat")
def one_directory_through_two_preopens(case: Case) -> None:
    write("area/data/fresh", b"1")
    case.same(read("again/fresh"), b"1", "the content by the other path")
    os.unlink("again/fresh")
    case.refused(errno.ENOENT, os.stat, "area/data/fresh")
    same = os.stat("area/data").st_ino == os.stat("again").st_ino
    case.differs("one directory through two preopens", "one inode" if same else "two inodes")


@behaviour("layout")
def a_single_file(case: Case) -> None:
    with opened("area/note", os.O_RDWR) as fd:
        os.write(fd, b"A")
    case.same(read("area/note"), b"A note", "the content")
    os.chmod("area/note", 0o600)
    case.same(mode_of("area/note"), 0o600, "the mode")
    write("area/note", b"a note")
    case.refused(errno.EBUSY, os.unlink, "area/note")
    case.refused(errno.EBUSY, os.rename, "area/note", "area/other")
    case.refused(errno.EBUSY, os.rename, "area/plain", "area/note")
    case.refused(errno.EXDEV, os.link, "area/note", "area/other")
    case.refused(errno.EEXIST, opened_and_closed, "area/note", os.O_CREAT | os.O_EXCL)
    case.refused(errno.ENOTDIR, os.stat, "area/note/x")


# -- mount points stay --------------------------------------------------------------------------


@behaviour("layout", "rename", "rmdir", "unlink")
def mount_points_stay(case: Case) -> None:
    os.mkdir("other")
    write("file")
    for path in ("lib", "again", "area/data", "area/data/inner"):
        beside = os.path.join(os.path.dirname(path), "moved")
        case.refused(errno.EBUSY, os.rmdir, path)
        case.refused(errno.EISDIR, os.unlink, path)
        case.refused(errno.EBUSY, os.rename, path, beside)
        case.refused(errno.EBUSY, rename2, path, beside, RENAME_NOREPLACE)
    for path in ("lib", "again"):
        case.refused(errno.EBUSY, os.rename, "other", path)
        case.refused(errno.EBUSY, rename2, "other", path, RENAME_EXCHANGE)
        case.refused(errno.EBUSY, rename2, path, "other", RENAME_EXCHANGE)
        case.refused(errno.EEXIST, rename2, "other", path, RENAME_NOREPLACE)
        case.refused(errno.EISDIR, os.rename, "file", path)
    os.rmdir("other")
    os.unlink("file")


@behaviour("layout")
def nothing_is_made_over_mount_points(case: Case) -> None:
    for path in (*MOUNT_POINTS, "syn", "syn/thetic", "area/note", "area"):
        case.refused(errno.EEXIST, os.mkdir, path)
        case.refused(errno.EEXIST, os.mkfifo, path)
        case.refused(errno.EEXIST, os.symlink, "t", path)
        case.refused(errno.EEXIST, opened_and_closed, path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    for path in ("lib", "area", "syn"):
        case.refused(errno.EEXIST, os.link, "a", path)


@behaviour("layout", "rename", "rmdir")
def directories_above_mount_points(case: Case) -> None:
    os.mkdir("room")
    case.refused(errno.EISDIR, os.unlink, "area")
    case.excepted("rmdir above a mount point", os.rmdir, "area")
    case.excepted("replace above a mount point", os.rename, "room", "area")
    os.rmdir("room")
    case.excepted("rename above a mount point", os.rename, "area", "moved")
    if os.path.exists("moved"):
        os.rename("moved", "area")
    case.excepted("exchange above a mount point", rename2, "area", "a", RENAME_EXCHANGE)
    if os.path.isfile("area"):
        rename2("area", "a", RENAME_EXCHANGE)
    os.chmod("area", 0o711)
    case.same(mode_of("area"), 0o711, "the mode: only its name is fixed")


# -- from one mount to another ------------------------------------------------------------------

CROSSINGS = (
    *(("a", "area/data"), ("area/data/d", "."), ("area/data/d", "area/data/inner")),
    *(("area/data/inner/i", "syn/thetic/deep"), ("area/data/d", "again"), ("lib/one", ".")),
    *(("a", "lib"), ("a", "syn"), ("a", "syn/thetic")),
)


@behaviour("layout", "rename")
def renaming_across_mounts(case: Case) -> None:
    os.mkdir("tree")
    for old, place in (*CROSSINGS, ("tree", "area/data"), ("tree", "syn/thetic/deep")):
        for flags in (0, RENAME_NOREPLACE):
            case.refused(errno.EXDEV, rename2, old, f"{place}/new", flags)
    case.refused(errno.EXDEV, rename2, "a", "area/data/d", RENAME_EXCHANGE)
    case.refused(errno.EXDEV, os.rename, "a", "area/data/d")
    os.rmdir("tree")


@behaviour("layout", "rename")
def renaming_across_mounts_when_names_do_not_fit(case: Case) -> None:
    os.mkdir("tree")
    write("tree/f")
    os.makedirs("area/data/full/f")
    case.excepted("missing name across mounts", os.rename, "missing", "area/data/x")
    case.excepted("taken name across mounts", rename2, "a", "area/data/d", RENAME_NOREPLACE)
    case.excepted("nothing to exchange across mounts", rename2, "a", "again/x", RENAME_EXCHANGE)
    case.excepted("file over directory across mounts", os.rename, "a", "area/data/full")
    case.excepted("directory over file across mounts", os.rename, "tree", "area/data/d")
    case.refused(errno.EXDEV, os.rename, "tree", "area/data/full")
    case.excepted("into itself across mounts", os.rename, "area", "area/data/x")
    case.excepted("over what holds it across mounts", os.rename, "area/data/d", "area")
    case.excepted("too long a name across mounts", os.rename, "area/data/d", TOO_LONG)
    case.excepted("names of one file across mounts", os.rename, "again/d", "area/data/d")
    case.same(read("area/data/d"), b"data", "the content afterwards")
    os.unlink("tree/f")
    os.rmdir("tree")
    os.removedirs("area/data/full/f")


@behaviour("layout", "link")
def linking_across_mounts(case: Case) -> None:
    for old, place in CROSSINGS:
        if place in ("lib", "syn", "syn/thetic"):
            case.excepted("link into a read-only mount", os.link, old, f"{place}/new")
        else:
            case.refused(errno.EXDEV, os.link, old, f"{place}/new")
    case.refused(errno.EEXIST, os.link, "a", "area/data/d")
    case.refused(errno.ENOENT, os.link, "missing", "area/data/x")
    case.excepted("directory linked across mounts", os.link, "area", "area/data/x")
    os.symlink("a", "ln")
    case.refused(errno.EXDEV, lambda: os.link("ln", "area/data/x", follow_symlinks=False))
    os.unlink("ln")


@behaviour("layout")
def moving_within_a_mount_goes(case: Case) -> None:
    os.mkdir("area/data/dir")
    case.done(os.link, "area/data/d", "area/data/dir/e")
    case.done(os.rename, "area/data/dir/e", "area/data/g")
    case.done(os.rename, "again/g", "again/h")
    case.done(os.unlink, "area/data/h")
    case.done(os.rmdir, "area/data/dir")
    case.done(os.rename, "area/plain", "plain")
    case.done(os.rename, "plain", "area/plain")


# -- read-only ----------------------------------------------------------------------------------


@behaviour(
    "layout",
    "chmod",
    "chown",
    "link",
    "mkdir",
    "mkfifo",
    "open",
    "removexattr",
    "rename",
    "rmdir",
    "setxattr",
    "symlink",
    "truncate",
    "unlink",
    "utimensat",
)
def nothing_changes_in_a_read_only_mount(case: Case) -> None:
    f, d, number = "lib/one", "lib/sub", errno.EROFS
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
        case.refused(number, opened_and_closed, f, flags)
        case.refused(number, opened_and_closed, f, flags | os.O_CREAT)
        case.refused(number, opened_and_closed, "lib/link", flags)
    for name in ("lib/new", "lib/sub/new"):
        case.refused(number, opened_and_closed, name, os.O_CREAT | os.O_WRONLY)
        case.refused(number, opened_and_closed, name, os.O_CREAT | os.O_RDONLY)
        case.refused(number, os.mkdir, name)
        case.refused(number, os.mkfifo, name)
        case.refused(number, os.symlink, "t", name)
        case.refused(number, os.link, f, name)
        case.refused(number, os.rename, f, name)
        case.refused(number, os.rename, d, "lib/dir")
    case.refused(number, os.unlink, f)
    case.refused(number, os.rename, f, "lib/link")
    case.refused(number, rename2, f, "lib/link", RENAME_EXCHANGE)
    case.refused(number, os.unlink, "lib/sub/two")
    case.refused(number, os.rmdir, d)
    for path in (f, d, "lib"):
        case.refused(number, os.chmod, path, 0o600)
        case.refused(number, os.chown, path, 1, 1)
        case.refused(number, utimensat, path, (1, 0), (1, 0))
        case.refused(number, os.utime, path)
        case.refused(number, os.setxattr, path, "user.a", b"1")
        case.refused(number, os.removexattr, path, "user.a")
    case.refused(number, os.lchown, "lib/link", 1, 1)
    case.refused(number, os.truncate, f, 0)
    case.same(sorted(os.listdir("lib")), ["link", "one", "sub"], "the listing afterwards")


@behaviour("layout", "access")
def asking_for_rights_in_a_read_only_mount(case: Case) -> None:
    for path in ("lib", "lib/one", "syn", "syn/thetic"):
        case.refused(errno.EROFS, libc_call, "access", path.encode(), os.W_OK)
        case.done(libc_call, "access", path.encode(), os.R_OK)
    case.refused(errno.EACCES, libc_call, "access", b"lib/one", os.W_OK | os.X_OK)
    case.done(libc_call, "access", b"syn/thetic/deep", os.W_OK)
    case.done(libc_call, "access", b"area/data", os.W_OK)


@behaviour("layout of all users", "access")
def asking_for_rights_as_one_user_of_many(case: Case) -> None:
    name = "access for writing with --allow-other"
    for path in (b"lib", b"lib/one", b"syn"):
        case.excepted(name, libc_call, "access", path, os.W_OK)


@behaviour("layout")
def handles_of_a_read_only_mount(case: Case) -> None:
    with opened("lib/one") as fd:
        case.refused(errno.EROFS, os.fchmod, fd, 0o600)
        case.refused(errno.EROFS, os.fchown, fd, 1, 1)
        case.refused(errno.EROFS, os.utime, fd, (1, 1))
        case.refused(errno.EROFS, os.setxattr, fd, "user.a", b"1")
        case.refused(errno.EINVAL, os.ftruncate, fd, 0)
        case.refused(errno.EROFS, opened_and_closed, f"/proc/self/fd/{fd}", os.O_WRONLY)


@behaviour("layout", "link", "rename", "rmdir", "setxattr", "unlink")
def read_only_and_missing(case: Case) -> None:
    case.excepted("unlink of a missing name, read-only", os.unlink, "lib/missing")
    case.excepted("rmdir of a missing name, read-only", os.rmdir, "lib/missing")
    case.excepted("rename of a missing name, read-only", os.rename, "lib/missing", "lib/x")
    case.excepted("unlink of a directory, read-only", os.unlink, "lib/sub")
    case.excepted("rmdir of a file, read-only", os.rmdir, "lib/one")
    case.excepted("rename onto a taken name, read-only", rename2, "lib/one", "lib/link", 1)
    case.excepted("rename of a file over a directory, read-only", os.rename, "lib/one", "lib/sub")
    case.excepted("rename of a directory over a file, read-only", os.rename, "lib/sub", "lib/one")
    case.excepted("rename into itself, read-only", os.rename, "lib/sub", "lib/sub/x")
    case.excepted("rename over what holds it, read-only", os.rename, "lib/sub/two", "lib/sub")
    case.excepted("rename to the same name, read-only", os.rename, "lib/one", "lib/one")
    case.excepted("link to a directory, read-only", os.link, "lib/sub", "lib/x")
    case.excepted("unlink of too long a name, read-only", os.unlink, f"lib/{TOO_LONG}")
    case.excepted("rmdir of too long a name, read-only", os.rmdir, f"lib/{TOO_LONG}")
    case.excepted("rename of too long a name, read-only", os.rename, "lib/one", f"lib/{TOO_LONG}")
    replace = ("lib/one", "user.a", b"1", os.XATTR_REPLACE)
    case.excepted("replace a missing attribute, read-only", os.setxattr, *replace)
    case.refused(errno.EEXIST, os.mkdir, "lib/sub")
    case.refused(errno.ENOENT, os.truncate, "lib/missing", 0)
    case.refused(errno.ENOENT, os.link, "lib/missing", "lib/x")


@behaviour("layout", "open")
def aliases_of_read_only_files(case: Case) -> None:
    case.same(os.stat("lib/one").st_ino, os.stat("alias").st_ino, "the inode number")
    name = "write to an alias of a read-only file"
    case.excepted(name, opened_and_closed, "alias", os.O_WRONLY)
    case.done(opened_and_closed, "alias", os.O_RDONLY)


# -- synthetic directories ----------------------------------------------------------------------


@behaviour("layout")
def synthetic_directories(case: Case) -> None:
    for path in ("syn", "syn/thetic"):
        status = os.stat(path)
        case.same(status.st_mode, stat.S_IFDIR | 0o555, f"the mode of {path}")
        case.same((status.st_uid, status.st_gid), (0, 0), "the owner")
        new = f"{path}/new"
        case.refused(errno.EROFS, os.mkdir, new)
        case.refused(errno.EROFS, opened_and_closed, new, os.O_CREAT | os.O_WRONLY)
        case.refused(errno.EROFS, os.symlink, "t", new)
        case.refused(errno.EROFS, os.mkfifo, new)
        case.refused(errno.ENOENT, os.stat, new)
        case.refused(errno.ENAMETOOLONG, os.stat, f"{path}/{TOO_LONG}")
        case.refused(errno.EROFS, os.chmod, path, 0o777)
        case.refused(errno.EROFS, os.chown, path, 1, 1)
        case.refused(errno.EROFS, os.utime, path)
        case.refused(errno.EROFS, os.setxattr, path, "user.a", b"1")
        case.same(os.listxattr(path), [], "its attributes")
    write("syn/thetic/deep/new", b"1")
    os.unlink("syn/thetic/deep/new")


@behaviour("layout")
def synthetic_directories_stay(case: Case) -> None:
    case.refused(errno.EBUSY, os.rmdir, "syn")
    case.refused(errno.EBUSY, os.rename, "syn", "moved")
    case.excepted("removal in a synthetic", os.rmdir, "syn/thetic")
    case.excepted("removal in a synthetic", os.rmdir, "syn/thetic/deep")
    case.excepted("rename in a synthetic", os.rename, "syn/thetic", "syn/moved")
    case.refused(errno.EXDEV, os.rename, "syn/thetic", "moved")
    case.excepted("unlink of a missing name, read-only", os.unlink, "syn/missing")


# -- symbolic links that leave their mount ------------------------------------------------------


@behaviour("links", "readlink")
def links_into_other_mounts(case: Case) -> None:
    from_the_root = ["/lib/one", "/area/../lib/one", "/area/data/inner/../../../../lib/one"]
    climbing = [
        "../../lib/one",
        "../../../../../lib/one",
        "inner/../../../lib/one",
        "./../../lib//one",
    ]
    for target in (*from_the_root, *climbing):
        os.symlink(target, "area/data/ln")
        case.same(read("area/data/ln"), b"lib one", f"what {target} leads to")
        os.unlink("area/data/ln")


@behaviour("links", "readlink")
def links_are_read_from_where_they_are_now(case: Case) -> None:
    os.mkdir("area/data/down")
    write("area/data/one", b"data one")
    os.symlink("../one", "area/data/down/ln")
    case.same(read("area/data/down/ln"), b"data one", "what the link leads to")
    os.rename("area/data/down/ln", "area/data/ln")
    case.refused(errno.ENOENT, os.stat, "area/data/ln")
    case.refused(errno.ENOENT, os.stat, "again/ln")
    write("one", b"root one")
    case.same(read("again/ln"), b"root one", "what it leads to from the other preopen")
    for name in ("area/data/ln", "area/data/one", "one"):
        os.unlink(name)
    os.rmdir("area/data/down")


@behaviour("links", "readlink")
def texts_of_links_that_leave(case: Case) -> None:
    for target in ("/lib/one", "../../../../lib/one", "/", "/area/../lib"):
        os.symlink(target, "area/data/ln")
        text = os.readlink("area/data/ln")
        case.differs("text of a link that leaves", "stored" if text == target else "rebased")
        case.same(os.lstat("area/data/ln").st_size, len(text), "the size")
        os.unlink("area/data/ln")


@behaviour("links")
def links_through_what_is_missing(case: Case) -> None:
    for target, number in (("/missing/../a", errno.ENOENT), ("/a/../a", errno.ENOTDIR)):
        os.symlink(target, "area/ln")
        case.refused(number, os.stat, "area/ln")
        case.refused(number, opened_and_closed, "area/ln", os.O_CREAT | os.O_WRONLY)
        case.refused(number, os.listdir, "area/ln")
        os.unlink("area/ln")

"""What every operation answers to a path that leads nowhere: errnos and which of them comes first.

One behaviour for each operation and each kind of fault, from one list of operations.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from conformance.case import Case, behaviour, opened_and_closed, user, utimensat, write
from conformance.posix.support import (
    LONGEST_NAME,
    LONGEST_PATH,
    USERS,
    deep_directory,
    remove,
    untouched,
)


@dataclass(frozen=True)
class Operation:
    """One way in which an operation takes a path."""

    name: str
    call: Callable[[str], object]
    makes: bool = False
    """Whether PATH is what the operation makes, rather than something that must be there."""
    follows: bool = False
    """Whether it follows a link in the last component."""
    wants: str = "file"
    """What must be there: a file or a directory."""

    @property
    def operation(self) -> str:
        return self.name.partition("_to_")[0]


OPERATIONS = (
    Operation("chmod", lambda path: os.chmod(path, 0o644), follows=True),
    Operation("chown", lambda path: os.chown(path, 0, 0), follows=True),
    Operation("lchown", lambda path: os.lchown(path, 0, 0)),
    Operation("truncate", lambda path: os.truncate(path, 0), follows=True),
    Operation("utimensat", lambda path: utimensat(path, (1, 0), (1, 0)), follows=True),
    Operation("open", lambda path: opened_and_closed(path, os.O_RDONLY), follows=True),
    Operation("unlink", os.unlink),
    Operation("rmdir", os.rmdir, wants="directory"),
    Operation("link", lambda path: os.link(path, "made", follow_symlinks=False)),
    Operation("rename", lambda path: os.rename(path, "made")),
    Operation("mkdir", os.mkdir, makes=True),
    Operation("mkfifo", os.mkfifo, makes=True),
    Operation("mknod", lambda path: os.mknod(path, stat.S_IFSOCK | 0o644), makes=True),
    Operation("symlink", lambda path: os.symlink("target", path), makes=True),
    Operation(
        "open_to_create",
        lambda path: opened_and_closed(path, os.O_RDWR | os.O_CREAT),
        makes=True,
        follows=True,
    ),
    Operation("link_to_new", lambda path: os.link("f", path), makes=True),
    Operation("rename_to_new", lambda path: os.rename("f", path), makes=True),
)


def _plant() -> None:
    write("f")
    os.mkdir("d")
    os.symlink("b", "a")
    os.symlink("a", "b")


def _no_such_path(case: Case, operation: Operation) -> None:
    call = operation.call
    _plant()
    with untouched(case, "f", "d"):
        case.refused(errno.ENOENT, call, "")
        case.refused(errno.ENOENT, call, "missing/x")
        case.refused(errno.ENOENT, call, "d/missing/x")
        case.refused(errno.ENOTDIR, call, "f/x")
        case.refused(errno.ENOTDIR, call, "f/x/y")
        if not operation.makes:
            case.refused(errno.ENOENT, call, "missing")
        if operation.wants == "file" and not operation.makes:
            case.refused(errno.ENOTDIR, call, "f/")


def _too_long(case: Case, operation: Operation) -> None:
    call, too_long = operation.call, "n" * 256
    _plant()
    with untouched(case, "f", "d"):
        case.refused(errno.ENAMETOOLONG, call, too_long)
        case.refused(errno.ENAMETOOLONG, call, f"d/{too_long}")
        case.refused(errno.ENAMETOOLONG, call, f"{too_long}/x")
        case.refused(errno.ENAMETOOLONG, call, "./" * (LONGEST_PATH // 2) + "ff")
        case.refused(errno.ENAMETOOLONG, call, "f/" + "x" * LONGEST_PATH)
        case.refused(errno.ENOTDIR, call, f"f/{too_long}")
        case.refused(errno.ENOENT, call, f"missing/{too_long}")


def _longest(case: Case, operation: Operation) -> None:
    write("f")
    for path in (LONGEST_NAME, deep_directory() + "last"):
        remove("made")
        _supply(operation, path)
        case.done(operation.call, path)
        if operation.operation in ("unlink", "rmdir", "rename") and not operation.makes:
            case.refused(errno.ENOENT, os.lstat, path)
        else:
            case.done(os.lstat, path)
    case.same(len(path), LONGEST_PATH, "the length of the path")


def _supply(operation: Operation, path: str) -> None:
    """What the operation needs to find."""
    write("f")
    if not operation.makes:
        (write if operation.wants == "file" else os.mkdir)(path)


def _loops(case: Case, operation: Operation) -> None:
    call = operation.call
    _plant()
    with untouched(case, "f", "a", "b"):
        case.refused(errno.ELOOP, call, "a/x")
        case.refused(errno.ELOOP, call, "a/" + "n" * 256)
        if operation.follows:
            case.refused(errno.ELOOP, call, "a")
        elif operation.makes and operation.name != "rename_to_new":
            case.refused(errno.EEXIST, call, "a")


def _may_not_search(case: Case, operation: Operation) -> None:
    call = operation.call
    _plant()
    os.mkdir("closed")
    write("closed/f")
    os.symlink("closed", "way")
    os.chmod("closed", 0o666)
    for caller in USERS:
        with untouched(case, "f", "closed"), user(*caller):
            for path in ("closed/f", "closed/missing", "closed/f/x", "closed/missing/x", "way/f"):
                case.refused(errno.EACCES, call, path)
            case.refused(errno.EACCES, call, "closed/" + "n" * 256)
            case.refused(errno.EACCES, call, "closed/..")


def _may_not_write(case: Case, operation: Operation) -> None:
    """The directory that would change is not the caller's; faults of the path come first."""
    call = operation.call
    _plant()
    os.chmod("f", 0o666)
    os.chmod(".", 0o777)
    os.mkdir("d/e")
    write("d/f")
    there = "d/e" if operation.wants == "directory" else "d/f"
    for caller in USERS:
        with untouched(case, "f", "d", "d/f", "d/e"), user(*caller):
            case.refused(errno.EACCES, call, "d/new" if operation.makes else there)
            case.refused(errno.ENAMETOOLONG, call, "d/" + "n" * 256)
            case.refused(errno.ENOENT, call, "d/missing/x")
            if not operation.makes:
                case.refused(errno.ENOENT, call, "d/missing")
            elif operation.name not in ("open_to_create", "rename_to_new"):
                case.refused(errno.EEXIST, call, "d/f")


_CHANGES_THE_DIRECTORY = [
    row for row in OPERATIONS if row.makes or row.name in ("unlink", "rmdir", "rename")
]


def _enter(kind: str, run: Callable[[Case, Operation], None], rows: tuple[Operation, ...]) -> None:
    for row in rows:

        def behave(case: Case, row: Operation = row) -> None:
            run(case, row)

        behave.__name__ = f"{row.name}_{kind}"
        behaviour("users", row.operation)(behave)


_enter("no_such_path", _no_such_path, OPERATIONS)
_enter("too_long", _too_long, OPERATIONS)
_enter("longest", _longest, OPERATIONS)
_enter("loops", _loops, OPERATIONS)
_enter("may_not_search", _may_not_search, OPERATIONS)
_enter("may_not_write", _may_not_write, tuple(_CHANGES_THE_DIRECTORY))

"""Operations as data, and what they come to: the part of the model that runs in a worker.

An operation is a list: its verb, then paths, numbers and flags. Paths are relative to the root of
the tree. The answer is an errno or a value, with where the paths led to before it was carried out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

from conformance.case import (
    AT_SYMLINK_NOFOLLOW,
    UTIME_NOW,
    UTIME_OMIT,
    libc_call,
    rename2,
    utimensat,
)

Operation = list[Any]
Answer = dict[str, Any]

LONG_AGO = 1_000_000_000
"""Times before this were set on purpose and must agree; later ones are those of the test run."""

FOLLOWING = {"open", "truncate", "chmod", "chown", "utimens", "setxattr", "getxattr", "listxattr"}
FOLLOWING |= {"removexattr", "stat", "access", "listing", "read"}
"""Verbs that go through a link at the end of the path, to classify where they lead."""
MAX_LINKS = 40
"""path_resolution(7)."""
TWO_PATHS = {"rename", "link"}
ON_SLOTS = {"write slot", "read slot", "truncate slot", "status slot", "close slot", "list slot"}
ON_SLOTS |= {"make in slot", "look in slot"}


def run_sequence(operations: list[Operation]) -> list[Answer]:
    """Carry out OPERATIONS one after the other; slots are closed at the end."""
    slots: dict[int, int] = {}
    try:
        return [_run(slots, verb, arguments) for verb, *arguments in operations]
    finally:
        for fd in slots.values():
            os.close(fd)


def _run(slots: dict[int, int], verb: str, arguments: list[Any]) -> Answer:
    answer: Answer = {"led to": _resolve(verb, arguments)}
    try:
        if verb == "open":
            slot, path, flags, mode = arguments
            fd = os.open(path, flags, mode)
            if slot in slots:
                os.close(slots[slot])
            slots[slot] = fd
        elif verb in ON_SLOTS:
            fd = slots.get(arguments[0], -1)
            answer["value"] = None if fd < 0 else _SLOT_VERBS[verb](fd, *arguments[1:])
            if verb == "close slot":
                slots.pop(arguments[0], None)
        else:
            answer["value"] = _PATH_VERBS[verb](*arguments)
    except OSError as error:
        answer["errno"] = error.errno
    return answer


def _resolve(verb: str, arguments: list[Any]) -> list[str | None]:
    """Where the operation's paths lead: its last names too, where the verb follows links there."""
    if verb in ON_SLOTS:
        return []
    if verb in ("open", "symlink"):
        paths = arguments[1:2]  # behind the slot, and behind what the link says
    else:
        paths = arguments[:2] if verb in TWO_PATHS else arguments[:1]
    return [_resolved(path, verb in FOLLOWING) for path in paths]


def _resolved(path: str, follow: bool) -> str | None:
    """PATH without links and dots, None where it leads nowhere.

    `os.path.realpath` takes what follows a missing name lexically, and gets lost in some loops.
    """
    at: list[str] = []
    pending = _steps(path)
    links = 0
    while pending:
        step = pending.pop(0)
        if step in (".", ".."):
            at = at[:-1] if step == ".." else at
            continue
        here = os.path.join(*at, step)
        if (pending or follow) and os.path.islink(here):
            links += 1
            if links > MAX_LINKS:
                return None
            target = os.readlink(here)
            at = [] if target.startswith("/") else at
            pending = _steps(target) + pending
            continue
        if pending and not os.path.isdir(here):
            return None
        at.append(step)
    return "/".join(at)


def _steps(path: str) -> list[str]:
    """What a path asks for one after the other; a slash at its end asks for a directory."""
    return [step for step in path.split("/") if step] + (["."] if path.endswith("/") else [])


# -- what can be seen of an object --------------------------------------------------------------


def status(found: os.stat_result) -> dict[str, Any]:
    """What must agree. A directory's size and link count are the file system's own business, and
    on the kernel's side count what only bind mounts need."""
    seen: dict[str, Any] = {"mode": found.st_mode, "owner": [found.st_uid, found.st_gid]}
    if not stat.S_ISDIR(found.st_mode):
        seen["nlink"] = found.st_nlink
    if stat.S_ISREG(found.st_mode):
        seen["size"] = found.st_size
    if found.st_mtime_ns < LONG_AGO * 1_000_000_000:
        seen["mtime"] = found.st_mtime_ns
    return seen


def _link_status(path: str) -> dict[str, Any]:
    found = os.lstat(path)
    seen = status(found)
    if stat.S_ISLNK(found.st_mode):
        seen["size fits"] = found.st_size == len(os.fsencode(os.readlink(path)))
    return seen


def walk_tree() -> dict[str, Any]:
    """All that the tree shows, by path; links also by what they lead to."""
    seen: dict[str, Any] = {}
    for directory, subdirectories, files in os.walk("."):
        # With a name that is listed twice, twice: by path there would be but one.
        seen[f"{directory}/"] = {"listing": sorted((*subdirectories, *files))}
        for name in (*subdirectories, *files):
            path = os.path.join(directory, name)
            seen[path] = _link_status(path)
            if os.path.islink(path):
                seen[path]["leads to"] = _run({}, "stat", [path]).get("value")
            elif os.path.isfile(path):
                seen[path]["content"] = _read(path)
    return seen


def _read(path: str) -> str:
    # A FIFO would keep us waiting for a writer.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        return file.read().hex()


# -- verbs --------------------------------------------------------------------------------------


def _write_file(path: str, data: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o644)
    try:
        os.write(fd, data.encode())
    finally:
        os.close(fd)


def _append(path: str, data: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
    try:
        os.write(fd, data.encode())
    finally:
        os.close(fd)


_TIMES: dict[str, tuple[int, int]] = {
    "old": (LONG_AGO // 2, 123_456_789),
    "now": (0, UTIME_NOW),
    "omit": (0, UTIME_OMIT),
}


def _utimens(path: str, atime: str, mtime: str, flags: int) -> None:
    utimensat(path, _TIMES[atime], _TIMES[mtime], flags)


def _same_file(one: str, other: str) -> bool:
    return os.path.samestat(os.stat(one), os.stat(other))


def _access(path: str, mode: int) -> None:
    libc_call("access", os.fsencode(path), mode)


_PATH_VERBS: dict[str, Callable[..., Any]] = {
    "write": _write_file,
    "append": _append,
    "read": _read,
    "mkdir": os.mkdir,
    "rmdir": os.rmdir,
    "unlink": os.unlink,
    "mknod": os.mknod,
    "symlink": os.symlink,
    "readlink": os.readlink,
    "link": lambda old, new: os.link(old, new, follow_symlinks=False),
    "rename": rename2,
    "truncate": os.truncate,
    "chmod": os.chmod,
    "chown": os.chown,
    "lchown": os.lchown,
    "utimens": _utimens,
    "lutimens": lambda path, atime, mtime: _utimens(path, atime, mtime, AT_SYMLINK_NOFOLLOW),
    "setxattr": lambda path, name, value, flags: os.setxattr(path, name, value.encode(), flags),
    "getxattr": lambda path, name: os.getxattr(path, name).hex(),
    "listxattr": lambda path: sorted(os.listxattr(path)),
    "removexattr": os.removexattr,
    "stat": lambda path: status(os.stat(path)),
    "lstat": _link_status,
    "access": _access,
    "listing": lambda path: sorted(os.listdir(path)),
    "same file": _same_file,
}

_SLOT_VERBS: dict[str, Callable[..., Any]] = {
    "write slot": lambda fd, offset, data: os.pwrite(fd, data.encode(), offset),
    "read slot": lambda fd, offset: os.pread(fd, 100, offset).hex(),
    "truncate slot": os.ftruncate,
    "status slot": lambda fd: status(os.fstat(fd)),
    "list slot": lambda fd: sorted(os.listdir(fd)),
    "make in slot": lambda fd, name: os.mkdir(name, dir_fd=fd),
    "look in slot": lambda fd, name: status(os.stat(name, dir_fd=fd, follow_symlinks=False)),
    "close slot": os.close,
}

"""What a host tree is, down to the last attribute, so that two moments can be compared."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class State(NamedTuple):
    """Everything about one host object that no guest may change; not its access time."""

    mode: int
    uid: int
    gid: int
    links: int
    mtime_ns: int
    ctime_ns: int
    content: bytes | tuple[str, ...]
    """Bytes of a file, target of a link, names in a directory."""
    xattrs: tuple[tuple[str, bytes], ...]


def state(path: Path, *, counts: bool = True) -> State:
    """The state of PATH itself; without COUNTS not what making and removing links changes."""
    status = path.lstat()
    names = os.listxattr(path, follow_symlinks=False)
    xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(names))
    links, changed = (status.st_nlink, status.st_ctime_ns) if counts else (0, 0)
    return State(
        *(status.st_mode, status.st_uid, status.st_gid, links, status.st_mtime_ns, changed),
        _content(path, status.st_mode),
        xattrs,
    )


def _content(path: Path, mode: int) -> bytes | tuple[str, ...]:
    if stat.S_ISDIR(mode):
        return tuple(sorted(os.listdir(path)))
    if stat.S_ISLNK(mode):
        return os.fsencode(path.readlink())
    return path.read_bytes() if stat.S_ISREG(mode) else b""


def snapshot(tops: Iterable[Path], *, counts: bool = True) -> dict[Path, State]:
    """The state of every one of TOPS and of all that lies below."""
    found: dict[Path, State] = {}
    pending = list(tops)
    while pending:
        path = pending.pop()
        found[path] = state(path, counts=counts)
        if stat.S_ISDIR(found[path].mode):
            pending.extend(path.iterdir())
    return found


def changes(before: dict[Path, State], after: dict[Path, State]) -> list[str]:
    """What differs, in words; empty where nothing does."""
    found = [f"{path} is new" for path in after.keys() - before.keys()]
    for path, then in before.items():
        now = after.get(path)
        if now is None:
            found.append(f"{path} is gone")
            continue
        for field, old, new in zip(State._fields, then, now, strict=True):
            if old != new:
                found.append(f"{path}: {field} was {old!r} and is {new!r}")
    return found

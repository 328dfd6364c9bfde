"""Random operations: few names in few places, so that they meet, and every kind of place."""

from __future__ import annotations

import os
import stat

from hypothesis import strategies as st

from conformance.case import RENAME_EXCHANGE, RENAME_NOREPLACE
from model.execution import Operation

PLACES = (
    *("", "area/", "area/data/", "area/data/inner/", "again/", "lib/", "lib/sub/", "syn/"),
    *("syn/thetic/", "syn/thetic/deep/", "a/", "area/a/", "area/data/a/", "again/b/", "b/a/"),
)
NAMES = ("a", "b", "c\udcff")
FIXED = (
    *("area", "lib", "again", "area/data", "area/data/inner", "area/note", "syn", "syn/thetic"),
    *("syn/thetic/deep", "lib/one", "lib/sub", "area/plain", "area/data/d", "again/d", "hidden"),
    *("lib/hidden", "area/data/hidden", "area/link", "lib/link", ".", "x" * 256),
)
TARGETS = (
    *("a", "b", "../a", "../b", "../../../../a", "/area/data", "/area/a", "/lib/one", "/", "."),
    *("..", "/again", "../lib/sub", "/area/../a", "missing", "/syn/thetic", "a/"),
    *("/area/data/..", "a/../b", "/a/../b", "b/../../../a", "missing/../a", "/area/plain/../a"),
)
"""What random links say."""

EXISTING = (
    *("a", "b/a/f", "area/plain", "area/link", "area/note", "area/data/d", "area/data/b/f"),
    *("area/data/inner/i", "syn/thetic/deep/p", "syn/thetic/deep/b", "again/d", "again/b"),
    *("lib/one", "lib/sub", "lib/link", "area/deep/p", "area/data/b", "b", "b/a"),
)
"""What layout.py puts there; a sequence may have removed it."""

made = st.builds("".join, st.tuples(st.sampled_from(PLACES), st.sampled_from(NAMES)))
existing = st.sampled_from(EXISTING)
path = st.one_of(made, made, existing, st.sampled_from(FIXED))
old_path = st.one_of(existing, path)
slot = st.integers(0, 2)
data = st.sampled_from(("", "x", "some data", "y" * 5000))
size = st.sampled_from((0, 3, 4096, 5000))
mode = st.sampled_from((0o600, 0o644, 0o755, 0o4755, 0o1777, 0))
owner = st.sampled_from((-1, 0, 7))
attribute = st.sampled_from(("user.a", "user.b"))
moment = st.sampled_from(("old", "now", "omit"))
rename_flags = st.sampled_from((0, 0, 0, RENAME_NOREPLACE, RENAME_EXCHANGE))
special = st.sampled_from((stat.S_IFIFO | 0o644, stat.S_IFREG | 0o600, stat.S_IFSOCK | 0o755))

_ACCESS = (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND)
_EXTRA = (0, 0, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_TRUNC, os.O_DIRECTORY, os.O_NOFOLLOW)
# O_NONBLOCK: opening a FIFO must not wait for another end.
open_flags = st.builds(
    lambda one, other: one | other | os.O_NONBLOCK,
    st.sampled_from(_ACCESS),
    st.sampled_from(_EXTRA),
)


def _operation(verb: str, *arguments: st.SearchStrategy[object]) -> st.SearchStrategy[Operation]:
    return st.tuples(st.just(verb), *arguments).map(list)


MOVING = (
    _operation("link", old_path, path),
    _operation("rename", old_path, path, rename_flags),
)

CHANGING_NAMES = (
    *MOVING,
    _operation("write", path, data),
    _operation("mkdir", path, mode),
    _operation("rmdir", path),
    _operation("unlink", path),
    _operation("mknod", path, special),
    _operation("symlink", st.sampled_from(TARGETS), path),
)

CHANGING_INODES = (
    _operation("append", path, data),
    _operation("truncate", path, size),
    _operation("chmod", path, mode),
    _operation("chown", path, owner, owner),
    _operation("lchown", path, owner, owner),
    _operation("utimens", path, moment, moment, st.just(0)),
    _operation("lutimens", path, moment, moment),
    _operation("setxattr", path, attribute, data, st.sampled_from((0, 1, 2))),
    _operation("removexattr", path, attribute),
)

LOOKING = (
    _operation("read", path),
    _operation("readlink", path),
    _operation("getxattr", path, attribute),
    _operation("listxattr", path),
    _operation("stat", path),
    _operation("lstat", path),
    _operation("access", path, st.integers(0, 7)),
    _operation("listing", path),
    _operation("same file", made, made),
)

THROUGH_HANDLES = (
    _operation("write slot", slot, size, data),
    _operation("read slot", slot, size),
    _operation("truncate slot", slot, size),
    _operation("status slot", slot),
    _operation("list slot", slot),
    _operation("make in slot", slot, st.sampled_from(NAMES)),
    _operation("look in slot", slot, st.sampled_from(NAMES)),
    _operation("close slot", slot),
)

operation = st.one_of(*CHANGING_NAMES, *CHANGING_INODES, *LOOKING, *THROUGH_HANDLES)
opening = _operation("open", slot, path, open_flags, mode)


def _link_and_follow(target: str, where: str) -> list[Operation]:
    return [["symlink", target, where], ["stat", where], ["read", where]]


group = st.one_of(
    st.lists(operation, min_size=1, max_size=8),
    st.lists(st.one_of(*CHANGING_NAMES), min_size=1, max_size=8),
    st.lists(st.one_of(*MOVING), min_size=1, max_size=4),
    st.lists(operation, min_size=1, max_size=8),
    st.builds(lambda *steps: list(steps), opening, *[st.one_of(*THROUGH_HANDLES)] * 3),
    st.builds(_link_and_follow, st.sampled_from(TARGETS), made),
)


def _chained(groups: list[list[Operation]]) -> list[Operation]:
    return [operation for group in groups for operation in group]


# Lists of lists: hypothesis makes a single list short, and one with a lower bound shrinks badly.
sequences = st.lists(group, min_size=1, max_size=8).map(_chained)

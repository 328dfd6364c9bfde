"""What the kernel says of paths in a tree it takes for `/`: the oracle for rebased links."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

GuestPath = str
"""A path without links, `/` for the root: what an object is called once everything is resolved."""


def resolve_in_chroot(tree: Path, paths: Sequence[str]) -> list[str | int]:
    """For each of PATHS, followed in a process whose root is TREE: the object's own path, or errno.

    Objects are told apart by inode number, so no file in TREE may have a second name.
    """
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        _answer_and_exit(tree, paths, told)
    os.close(told)
    with open(heard, "rb") as answers:
        found: list[tuple[int, int]] = json.load(answers)
    _, status = os.waitpid(child, 0)
    assert status == 0
    own = _own_paths(tree)
    return [own[inode] if number == 0 else number for number, inode in found]


def _answer_and_exit(tree: Path, paths: Sequence[str], told: int) -> None:
    status = 1
    try:
        os.chroot(tree)
        os.chdir("/")
        os.write(told, json.dumps([_ask(path) for path in paths]).encode())
        status = 0
    except BaseException as error:  # nothing of the test run may go on in this process
        print(repr(error), file=sys.stderr)
    finally:
        os._exit(status)


def _ask(path: str) -> tuple[int, int]:
    try:
        return 0, os.stat(path).st_ino
    except OSError as error:
        return error.errno or -1, 0


def _own_paths(tree: Path) -> dict[int, GuestPath]:
    own = {tree.stat().st_ino: "/"}
    for directory, names, files in os.walk(tree):
        for name in names + files:
            path = Path(directory, name)
            own[path.lstat().st_ino] = "/" + str(path.relative_to(tree))
    return own

"""What the two sides must agree on, and what exceptions.py lets them differ in."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conformance.case import show
from conformance.exceptions import EXCEPTIONS, OK, Divergence
from conformance.layout import Layout
from model.execution import Answer, Operation, status

ON_NAMES = {"rename", "rmdir", "unlink", "mkdir", "mknod", "symlink"}


class Geography:
    """What the paths of a layout are, in the words of exceptions.py."""

    def __init__(self, layout: Layout) -> None:
        self._mounts = {preopen.guest: preopen for preopen in layout.preopens}
        self._synthetic = layout.synthetic

    def settings(self, verb: str, paths: list[str | None]) -> set[str]:
        """The settings of an operation whose paths lead to PATHS."""
        found = set()
        mounts = set()
        for index, path in enumerate(paths):
            if path is None:
                continue
            # A name lies in the mount of its directory, even where it is itself a mount point.
            is_name = verb in ON_NAMES or (verb == "link" and index == 1)
            mount = self.mount_of(os.path.dirname(path) if is_name else path)
            mounts.add(mount)
            if mount not in self._mounts or self._mounts[mount].read_only:
                found.add("read-only")
            if mount not in self._mounts:
                found.add("synthetic")
            if any(Path(guest) != Path(path) and _is_in(guest, path) for guest in self._mounts):
                found.add("above")
        return found | ({"across mounts"} if len(mounts) > 1 else set())

    def mount_of(self, path: str) -> str:
        """The mount point that PATH lies at or below; of a synthetic directory the topmost."""
        points = [*self._mounts, *self._synthetic]
        return max((point for point in points if _is_in(path, point)), key=len)


def _is_in(path: str, directory: str) -> bool:
    return directory in ("", ".") or Path(path).is_relative_to(directory)


def outcome(answer: Answer) -> int:
    return int(answer.get("errno", OK))


def rows_for(verb: str, settings: set[str]) -> Iterator[Divergence]:
    for row in EXCEPTIONS.values():
        if verb in row.operations and row.setting in settings:
            yield row


def is_for_overlayd_alone(operation: Operation, answer: Answer, geography: Geography) -> bool:
    """Whether the kernel would do what overlayd, by a row of the table, refuses to: not to be
    repeated there, where it would change the tree."""
    settings = geography.settings(operation[0], answer["led to"])
    refused = outcome(answer)
    return refused != OK and any(
        row.overlayd == refused and row.kernel == OK for row in rows_for(operation[0], settings)
    )


def difference(
    operation: Operation, kernel: Answer, overlayd: Answer, geography: Geography
) -> str | None:
    """What is wrong with two answers to one operation."""
    verb = operation[0]
    if kernel == overlayd:
        return None
    if kernel["led to"] != overlayd["led to"]:
        return f"paths lead to {kernel['led to']}, through overlayd to {overlayd['led to']}"
    answers = outcome(kernel), outcome(overlayd)
    if answers[0] != answers[1]:
        rows = rows_for(verb, geography.settings(verb, kernel["led to"]))
        if any((row.kernel, row.overlayd) == answers for row in rows):
            return None
        return f"the kernel answers {show(answers[0])}, overlayd {show(answers[1])}"
    if verb == "readlink" and leaves(str(kernel["value"])):
        return None  # "text of a link that leaves"; what it leads to is compared on its own
    return f"the kernel answers {kernel.get('value')!r}, overlayd {overlayd.get('value')!r}"


def leaves(target: str) -> bool:
    """Whether a link's target may lead out of the directory it lies in, and so be rebased."""
    return target.startswith("/") or ".." in target.split("/")


# -- host trees ---------------------------------------------------------------------------------


def host_tree(base: Path, layout: Layout) -> dict[str, Any]:
    """All that the sources of LAYOUT hold, by path."""
    found: dict[str, Any] = {}
    groups: dict[tuple[int, int], str] = {}
    scaffolds = {f"{layout.root_source}/{top}" for top in layout.synthetic if top}
    for source in sorted({preopen.source for preopen in layout.preopens}):
        for path in sorted(_paths_below(base / source)):
            name = str(path.relative_to(base))
            if name in scaffolds:
                continue
            details = path.lstat()
            found[name] = {**status(details), **_content(path, details.st_mode)}
            if details.st_nlink > 1 and not stat.S_ISDIR(details.st_mode):
                inode = (details.st_dev, details.st_ino)
                found[name]["first name"] = groups.setdefault(inode, name)
    return found


def _paths_below(place: Path) -> Iterator[Path]:
    yield place
    if place.is_dir() and not place.is_symlink():
        for entry in place.iterdir():
            yield from _paths_below(entry)


def _content(path: Path, mode: int) -> dict[str, Any]:
    if stat.S_ISLNK(mode):
        return {"target": os.readlink(path)}
    content: dict[str, Any] = {}
    if stat.S_ISREG(mode):
        content["bytes"] = path.read_bytes()
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        content["attributes"] = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    return content


def tree_differences(kernel: dict[str, Any], overlayd: dict[str, Any]) -> list[str]:
    return [
        f"{path}: {kernel.get(path)} with bind mounts, {overlayd.get(path)} with overlayd"
        for path in sorted({*kernel, *overlayd})
        if kernel.get(path) != overlayd.get(path)
    ]

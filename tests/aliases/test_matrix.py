"""What is shown read-only cannot be changed by any name, in any way, whatever the flags' order.

Every kind of alias meets every changing operation, as root and as the owner of it all, and after
each the host's objects are compared with what they were.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from aliases import operations
from aliases.kinds import KINDS, Kind, plant
from aliases.private_mounts import in_private_mounts
from aliases.snapshot import changes, snapshot
from support.mounting import mounted
from support.processes import NOBODY, User, in_child, outcome

pytestmark = pytest.mark.usefixtures("data_way")

Attempt = tuple[str, Callable[[], None], tuple[str, ...]]
"""An operation, and the errors that are right for it."""

ROOT = User(0, 0)


@pytest.mark.parametrize("backwards", [False, True], ids=["", "backwards"])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_nothing_read_only_changes(kind: Kind, backwards: bool, open_path: Path) -> None:
    in_private_mounts(lambda: _try_everything(kind, backwards, open_path))


def _try_everything(kind: Kind, backwards: bool, place: Path) -> None:
    plant(place)
    kind.before(place)
    preopens = kind.preopens(place, backwards=backwards)
    with mounted(place, *preopens, options=["--allow-other"]) as target:
        kind.early(target)
        kind.after(place)
        kind.guest(target)
        for user in (NOBODY, ROOT):
            problems = in_child(partial(_try_as_user, kind, place, target), user=user)
            assert not problems, f"as uid {user.uid}:\n" + "\n".join(problems)


def _try_as_user(kind: Kind, place: Path, target: Path) -> list[str]:
    watched = [place / name for name in kind.watched]
    before = snapshot(watched)
    problems = []
    for name, attempt, right in _attempts(kind, target):
        result = outcome(attempt)
        if result not in right:
            problems.append(f"{name}: {result}")
        after = snapshot(watched)
        problems += [f"{name}: {change}" for change in changes(before, after)]
        before = after
    return problems


def _attempts(kind: Kind, target: Path) -> Iterator[Attempt]:
    yield from _on_file(target / kind.file)
    writable = target / kind.writable if kind.writable is not None else None
    if writable is not None:
        # EXDEV: the daemon is told the inode, and cannot tell by which of its names it was meant.
        linking = partial(os.link, target / kind.file, writable / "new")
        yield "link", linking, ("EROFS", "EXDEV")
    if kind.directory is None:
        return
    directory = target / kind.directory
    for name, call in operations.ways_into(directory).items():
        yield name, call, ("EROFS",)
    if writable is not None:
        across = operations.ways_across(directory, writable)
        moving = operations.ways_to_move(directory, writable) if kind.moves else {}
        for name, call in (*across.items(), *moving.items()):
            yield name, call, ("EROFS",)


def _on_file(path: Path) -> Iterator[Attempt]:
    """First by a descriptor, while nothing else was asked about the file: then by its name."""
    fd = os.open(path, os.O_RDONLY)
    try:
        for name, by_handle in operations.ON_HANDLES.items():
            yield name, partial(by_handle, fd), ("EROFS",)
        for name, by_path in operations.ON_FILES.items():
            yield f"{name} by handle", partial(by_path, f"/proc/self/fd/{fd}"), ("EROFS",)
    finally:
        os.close(fd)
    for name, by_path in operations.ON_FILES.items():
        yield name, partial(by_path, str(path)), ("EROFS",)
    yield "chattr", partial(operations.set_flags, str(path)), ("ENOTTY", "ENOSYS", "EOPNOTSUPP")

"""A descriptor the guest holds already gives no way to an inode that is shown read-only.

The kernel asks nothing about names when a guest goes on with what it has open: an alias may be
gone by then, so that the read-only name is the only one left, or may not have been one at first.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from aliases import operations
from aliases.kinds import plant
from aliases.private_mounts import bind, in_private_mounts
from aliases.snapshot import changes, snapshot
from support.mounting import mounted
from support.processes import NOBODY, User, in_child, outcome

pytestmark = pytest.mark.usefixtures("data_way")

ROOT = User(0, 0)

Disappearance = Callable[[Path, Path], None]
"""Takes the last writable name of `ro/f` away, given the host's place and the target."""


def _move_and_unlink(place: Path, _: Path) -> None:
    os.rename(place / "w/alias", place / "w/sub/elsewhere")
    os.unlink(place / "w/sub/elsewhere")


def _replace_by_another(place: Path, _: Path) -> None:
    os.unlink(place / "w/alias")
    (place / "w/alias").write_text("another")


def _put_a_trap(place: Path, _: Path) -> None:
    """What the kernel calls an unlinked file is a name that somebody can take."""
    os.unlink(place / "w/alias")
    (place / "w/alias (deleted)").write_text("another")


GONE: dict[str, Disappearance] = {
    "unlinked by the guest": lambda _, target: os.unlink(target / "w/alias"),
    "unlinked by the guest through the other preopen": (
        lambda _, target: os.unlink(target / "again/alias")
    ),
    "unlinked by the host": lambda place, _: os.unlink(place / "w/alias"),
    "replaced by the guest": lambda _, target: os.rename(target / "w/f", target / "w/alias"),
    "replaced by the guest through the other preopen": (
        lambda _, target: os.rename(target / "again/f", target / "again/alias")
    ),
    "replaced by the host": lambda place, _: os.rename(place / "w/f", place / "w/alias"),
    "moved by the host and unlinked": _move_and_unlink,
    "moved by the host to the read-only source": (
        lambda place, _: os.rename(place / "w/alias", place / "ro/elsewhere")
    ),
    "unlinked by the host, and another file put in its place": _replace_by_another,
    "unlinked by the host, and another given what seems its name": _put_a_trap,
}


@pytest.mark.parametrize("user", [NOBODY, ROOT], ids=["owner", "root"])
@pytest.mark.parametrize("way", GONE)
def test_the_alias_is_gone_and_the_descriptor_is_not(way: str, user: User, open_path: Path) -> None:
    plant(open_path)
    os.link(open_path / "ro/f", open_path / "w/alias")
    dirs = [f"{open_path}/ro::/ro::ro", f"{open_path}/w::/w", f"{open_path}/w::/again"]
    with mounted(open_path, *dirs, options=["--allow-other"]) as target:
        vanish = partial(GONE[way], open_path, target)
        problems = in_child(partial(_lose, open_path / "ro", target, vanish), user=user)
    assert not problems, "\n".join(problems)


def _lose(read_only: Path, target: Path, vanish: Callable[[], None]) -> list[str]:
    fd = os.open(target / "w/alias", os.O_RDONLY)
    vanish()
    return _try_by_handle(fd, read_only)


def _try_by_handle(fd: int, watched: Path, *, ways: tuple[str, ...] = ("EROFS",)) -> list[str]:
    before = snapshot([watched])
    problems = []
    attempts = {name: partial(call, fd) for name, call in operations.ON_HANDLES.items()}
    for name, call in operations.ON_FILES.items():
        attempts[f"{name} again"] = partial(call, f"/proc/self/fd/{fd}")
    for name, attempt in attempts.items():
        result = outcome(attempt)
        if result not in ways:
            problems.append(f"{name}: {result}")
    return problems + changes(before, snapshot([watched]))


BECOMES_READ_ONLY: dict[str, Callable[[Path], None]] = {
    "linked into the read-only source": lambda place: os.link(place / "w/sub/f", place / "ro/late"),
    "moved into the read-only source": lambda place: os.rename(
        place / "w/sub/f", place / "ro/late"
    ),
    "moved there with its directory": lambda place: os.rename(place / "w/sub", place / "ro/late"),
    "bound there": lambda place: bind(place / "w/sub/f", place / "ro/late"),
    "bound there with its directory": lambda place: bind(place / "w/sub", place / "ro/late"),
}


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR], ids=["reading", "writing"])
@pytest.mark.parametrize("way", BECOMES_READ_ONLY)
def test_what_becomes_read_only_while_it_is_open(way: str, flags: int, open_path: Path) -> None:
    """Its attributes and size are read-only at once, and nobody gets another way to write."""
    in_private_mounts(lambda: _become(BECOMES_READ_ONLY[way], flags, open_path))


def _become(change: Callable[[Path], None], flags: int, place: Path) -> None:
    plant(place)
    dirs = [f"{place}/ro::/ro::ro", f"{place}/w::/w"]
    with mounted(place, *dirs, options=["--allow-other"]) as target:
        fd = os.open(target / "w/sub/f", flags)
        change(place)
        for user in (NOBODY, ROOT):
            problems = in_child(partial(_try_by_handle, fd, place / "ro"), user=user)
            if flags == os.O_RDWR:
                truncated = in_child(partial(outcome, partial(os.ftruncate, fd, 0)), user=user)
                assert truncated == "EROFS"
            assert not problems, "\n".join(problems)
        os.close(fd)

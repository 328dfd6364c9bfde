"""Names that a guest took away: the kernel is told of them only where the host has them again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyfuse3
import pytest
import trio

from overlayd.core.numbers import ROOT_NUMBER as ROOT
from overlayd.host.watch import HostWatch
from overlayd.kernel import notifications
from overlayd.kernel.cache import CachePolicy
from overlayd.kernel.changes import HostChanges
from overlayd.kernel.operations import Operations
from support.core_guest import make_overlay

AGAIN: dict[str, Callable[[Path, Path], object]] = {
    "created": lambda name, _: name.touch(),
    "linked": lambda name, other: os.link(other, name),
    "moved in": lambda name, other: other.rename(name),
    "made a directory": lambda name, _: name.mkdir(),
    "symlinked": lambda name, _: name.symlink_to("x"),
}
AWAY = {
    "unlink": lambda guest: guest.operations.unlink(ROOT, b"name", guest.ctx),
    "rename": lambda guest: guest.operations.rename(ROOT, b"name", ROOT, b"new", 0, guest.ctx),
    "rmdir": lambda guest: guest.operations.rmdir(ROOT, b"directory", guest.ctx),
}
NAMES = {"unlink": b"name", "rename": b"name", "rmdir": b"directory"}


class Watched:
    """Request handlers, and a watch on what they change; no mount."""

    def __init__(self, source: Path) -> None:
        self.overlay = make_overlay(f"{source}::/")
        self.operations = Operations(self.overlay, CachePolicy.parse("coherent"), "posix")
        self.host = HostWatch()
        self.ctx = pyfuse3.RequestContext()
        coherence = self.operations.coherence
        coherence.watcher.start(self.host)
        self.changes = HostChanges(self.overlay.namespace, coherence, None)  # type: ignore[arg-type]

    def ask(self, request: Callable[[Watched], Any]) -> Any:
        async def answer() -> Any:
            return await request(self)

        return trio.run(answer)

    def told(self) -> list[bytes]:
        """What the kernel would be told of all that has happened by now."""
        return trio.run(self.changes.heed, self.host.take())


@pytest.fixture
def guest(tmp_path: Path) -> Iterator[Watched]:
    source = tmp_path / "source"
    (source / "directory").mkdir(parents=True)
    (source / "name").touch()
    (tmp_path / "other").touch()
    guest = Watched(source)
    guest.ask(lambda guest: guest.operations.lookup(ROOT, b"name", guest.ctx))
    guest.ask(lambda guest: guest.operations.lookup(ROOT, b"directory", guest.ctx))
    assert guest.told() == []
    yield guest
    guest.host.close()


@pytest.mark.parametrize("away", AWAY)
def test_what_stays_away_is_not_told(guest: Watched, away: str) -> None:
    guest.ask(AWAY[away])
    assert guest.told() == []


@pytest.mark.parametrize("again", AGAIN)
@pytest.mark.parametrize("away", AWAY)
@pytest.mark.parametrize("at_once", [True, False])
def test_what_the_host_has_again_is_told(
    guest: Watched, tmp_path: Path, away: str, again: str, at_once: bool
) -> None:
    guest.ask(AWAY[away])
    if not at_once:
        guest.told()
    AGAIN[again](tmp_path / "source" / os.fsdecode(NAMES[away]), tmp_path / "other")
    assert notifications.expired(ROOT, NAMES[away]) in guest.told()


def test_what_the_guest_makes_again_is_not_told(guest: Watched) -> None:
    guest.ask(AWAY["unlink"])
    guest.ask(lambda guest: guest.operations.mkdir(ROOT, b"name", 0o755, guest.ctx))
    assert guest.told() == []

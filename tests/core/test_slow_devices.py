"""File systems that may keep a caller waiting: never asked on the event loop."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from overlayd.core.types import WouldBlock
from overlayd.host import mounts
from support.core_guest import Guest
from support.planting import plant


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guest:
    """Every file system of this machine passes for a network file system."""
    plant(tmp_path, "a/f=F", "a/d/g=G", "b/")
    monkeypatch.setattr(mounts.Mount, "may_block", True)
    guest = Guest(f"{tmp_path}/a::/", f"{tmp_path}/b::/m")
    assert guest.overlay.namespace.has_slow_source, "the adapter asks once, before it serves"
    return guest


ATTEMPTS: dict[str, Callable[[Guest], object]] = {
    "lookup": lambda g: g.names.lookup(1, b"f"),
    "opendir": lambda g: g.names.opendir(1, g.caller),
    "mkdir": lambda g: g.names.mkdir(1, b"new", 0o755, g.caller),
    "create": lambda g: g.data.create(1, b"new", 0o644, os.O_RDWR, g.caller),
    "unlink": lambda g: g.names.unlink(1, b"f", g.caller),
    "rename": lambda g: g.names.rename(1, b"f", 1, b"new", 0, g.caller),
    "getattr": lambda g: g.attributes.getattr(1),
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_without_patience_nothing_is_asked_and_nothing_changes(
    slow: Guest, tmp_path: Path, attempt: Callable[[Guest], object]
) -> None:
    with pytest.raises(WouldBlock) as caught:
        attempt(slow)
    assert caught.value.device == (tmp_path / "a").stat().st_dev
    assert sorted(os.listdir(tmp_path / "a")) == ["d", "f"]
    assert (tmp_path / "a/f").read_text() == "F"


def test_with_patience_everything_works(slow: Guest, tmp_path: Path) -> None:
    with slow.overlay.namespace.patience():
        assert slow.read("/d/g") == "G"
        assert slow.ls("/") == ["d", "f", "m"]
        slow.make("/m/new", "N")
        slow.rename("/f", "/d/f")
    assert (tmp_path / "b/new").read_text() == "N"
    with pytest.raises(WouldBlock):
        slow.names.lookup(1, b"d")


def test_open_files_are_known_to_be_slow(slow: Guest) -> None:
    with slow.overlay.namespace.patience():
        handle = slow.open("/d/g")
    assert slow.data.may_block(handle)
    assert slow.data.read_cached(handle, 0, 1) is None


def test_slow_files_are_known_as_such(slow: Guest) -> None:
    space = slow.overlay.namespace
    with space.patience():
        number = slow.stat("/d/g").number
    assert space.may_block(space.nodes.get(number))


def test_fast_file_systems_never_wait(tmp_path: Path) -> None:
    plant(tmp_path, "a/f=F")
    guest = Guest(f"{tmp_path}/a::/")
    handle = guest.open("/f")
    assert not guest.data.may_block(handle)
    assert not guest.overlay.namespace.has_slow_source
    assert not guest.stat("/f").volatile


def test_a_link_that_leads_to_a_slow_source_is_looked_up_at_once(tmp_path: Path) -> None:
    """Who looks it up, or lists it, holds the directory; its own attributes hold nothing."""
    plant(tmp_path, "a/file=")
    stored = "/slow/d/../../../x"
    (tmp_path / "a/link").symlink_to(stored)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as slow:
        plant(Path(slow), "d/")
        guest = Guest(f"{tmp_path}/a::/", f"{slow}::/slow")
        space = guest.overlay.namespace
        space._devices.blocking.add(os.stat(slow).st_dev)
        (listed,) = (attrs for name, attrs in guest.listing("/") if name == b"link")
        found = guest.names.lookup(1, b"link")
        assert listed.number == found.number
        assert [(a.size, a.volatile) for a in (found, listed)] == [(len(stored), True)] * 2
        with pytest.raises(WouldBlock):
            guest.attributes.getattr(found.number)
        with space.patience():
            settled = guest.attributes.getattr(found.number)
            assert settled.size == len(guest.attributes.readlink(found.number)) != found.size
        assert not settled.volatile

"""What is noted of a listing whose reply has room for a part of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyfuse3
import pytest

from overlayd.host.watch import HostWatch
from overlayd.kernel.cache import LASTING, SHORT, CachePolicy
from overlayd.kernel.coherence import NOT_RELIED_ON
from overlayd.kernel.operations import Operations
from support.core_guest import make_overlay
from support.fake_core import CONTEXT, run
from support.planting import plant

Told = dict[bytes, tuple[int, int, float, float]]
"""Number, mode, and seconds for the name and for the attributes."""


class Mount:
    """The handlers over one real directory, and a kernel with room for so many entries."""

    def __init__(self, source: Path, mode: str) -> None:
        self.operations = Operations(make_overlay(f"{source}::/"), CachePolicy.parse(mode), "posix")
        self.nodes = self.operations._overlay.namespace.nodes
        self.room = 0
        self.told: Told = {}

    def reply(self, _token: object, name: bytes, entry: Any, _cookie: int) -> bool:
        if len(self.told) == self.room:
            return False
        seconds = (entry.entry_timeout, entry.attr_timeout)
        self.told[name] = (entry.st_ino, entry.st_mode, *seconds)
        return True

    def list(self, room: int) -> Told:
        self.room, self.told = room, {}
        handle = run(self.operations.opendir, 1, CONTEXT)
        run(self.operations.readdir, handle, 2, None)
        run(self.operations.releasedir, handle)
        return self.told


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    plant(tmp_path, *(f"a/n{index}=" for index in range(60)), "a/d/", "a/l->n0", "b/")
    os.link(tmp_path / "a/n7", tmp_path / "b/other")
    mount = Mount(tmp_path / "a", "coherent")
    monkeypatch.setattr(pyfuse3, "readdir_reply", mount.reply)
    host = HostWatch()
    mount.operations.coherence.watcher.start(host)
    yield mount
    mount.operations.coherence.watcher.stop()


def test_only_what_the_kernel_took_counts_as_told(mount: Mount) -> None:
    for number, _, _, _ in mount.list(100).values():
        mount.nodes.get(number).told_ns = NOT_RELIED_ON  # as after a while
    everything = dict(mount.told)
    told = mount.list(30)
    assert len(told) == 30 and len(everything) == 62
    for name, (number, _, _, seconds) in everything.items():
        node = mount.nodes.get(number)
        assert bool(node.told_ns) == (name in told and seconds == LASTING), name
        assert node.lookups == 1 + (name in told)


def test_each_entry_holds_for_as_long_as_it_can_be_relied_on(mount: Mount) -> None:
    told = mount.list(100)
    assert {seconds for _, _, seconds, _ in told.values()} == {LASTING}
    short = {name for name, entry in told.items() if entry[3] != LASTING}
    assert short == {b"n7", b"d"}  # it has another name, or what is in it is not watched
    assert told[b"n7"][3] == told[b"d"][3] == SHORT


@pytest.mark.parametrize(("mode", "seconds"), [("none", 0.0), ("7", 7.0)])
def test_where_nothing_is_watched_all_hold_as_long(mount: Mount, mode: str, seconds: float) -> None:
    mount.operations.configure(CachePolicy.parse(mode), "posix")
    told = mount.list(100)
    assert {entry[2:] for entry in told.values()} == {(seconds, seconds)}
    assert {mount.nodes.get(entry[0]).told_ns for entry in told.values()} == {NOT_RELIED_ON}

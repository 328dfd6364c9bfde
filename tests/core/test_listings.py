"""Listings that look at many entries at once say and count what looking at each would."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from overlayd.core.listings import _AT_ONCE, Entry
from overlayd.core.namespace import Namespace
from overlayd.core.nodes import Node
from overlayd.core.types import Attrs
from support.core_guest import Guest
from support.planting import plant


@pytest.fixture
def mixed(tmp_path: Path) -> Guest:
    """A directory that holds more than one slice, of everything that is looked at differently."""
    plant(tmp_path, *(f"a/n{index}=" for index in range(3 * _AT_ONCE)), "b/inner=1", "c=file")
    here = tmp_path / "a"
    for index in range(40):
        (here / f"d{index}").mkdir()
        (here / f"l{index}").symlink_to("/" if index % 2 else f"n{index}")
    os.link(here / "n1", here / "d1/second")
    os.link(here / "n2", here / "again")
    os.mkfifo(here / "fifo")
    (here / "n3").unlink()
    return Guest(
        f"{here}::/", f"{tmp_path}/b::/d3/mount", f"{tmp_path}/b::/m", f"{tmp_path}/c::/n4"
    )


def lasting(attrs: Attrs) -> Attrs:
    """ATTRS without what reading a link or a directory moves."""
    return attrs._replace(stat=attrs.stat._replace(atime_ns=0))


def listed(guest: Guest) -> list[Entry]:
    handle = guest.names.opendir(1, guest.caller)
    entries: list[Entry] = []
    while taken := guest.take(handle, entries[-1].cookie if entries else 0, 50):
        entries += taken
    guest.data.release(handle)
    return entries


def test_each_entry_is_what_a_lookup_says(mixed: Guest) -> None:
    entries = listed(mixed)
    cookies = [entry.cookie for entry in entries]
    assert cookies == sorted(set(cookies))
    assert {stat.S_IFMT(entry.attrs.stat.mode) for entry in entries} >= {
        *(stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO)
    }
    for name, attrs, _, node, _ in entries[2:]:
        assert lasting(mixed.names.lookup(1, name)) == lasting(attrs), name
        assert node is mixed.overlay.namespace.nodes.get(attrs.number)
    plain = {entry.name: entry.is_plain for entry in entries}
    assert plain[b"n0"] and plain[b"d0"] and plain[b"fifo"]
    assert not any(plain[name] for name in (b".", b"..", b"d3", b"m", b"n4", b"l0"))


def test_it_is_the_same_one_by_one(mixed: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = [(entry.name, lasting(entry.attrs)) for entry in listed(mixed)]
    numbers = [attrs.number for _, attrs in at_once[2:]]
    for number in numbers:
        mixed.names.forget(number, 1)
    monkeypatch.setattr(Namespace, "is_plain", lambda *_: False)
    one_by_one = [(entry.name, lasting(entry.attrs)) for entry in listed(mixed)]
    assert one_by_one == at_once


@pytest.mark.parametrize("room", [0, 1, 5])
def test_what_does_not_fit_is_not_kept(mixed: Guest, room: int) -> None:
    nodes = mixed.overlay.namespace.nodes
    before = len(nodes)
    handle = mixed.names.opendir(1, mixed.caller)
    kept = []
    for start in (2, 1 << 61):  # the second begins about in the middle
        for entries in mixed.overlay.listings.entries(handle, start):
            mixed.overlay.listings.settle(entries, room)
            kept += [entry.node for entry in entries[:room]]
            break
    mixed.data.release(handle)
    assert len(nodes) == before + len(kept) == before + 2 * room
    assert all(isinstance(node, Node) and node.lookups == 1 for node in kept)
    for node in kept:
        assert node is not None
        mixed.names.forget(node.number, 1)
    assert len(nodes) == before


def test_an_inode_number_used_again_is_another_node(tmp_path: Path) -> None:
    plant(tmp_path, "a/x=")
    guest = Guest(f"{tmp_path}/a::/")
    former = listed(guest)[2].node
    assert former is not None
    former.birth_ns -= 1  # as if it had been made before
    node = listed(guest)[2].node
    assert node is not None and node is not former and node.number != former.number
    assert guest.overlay.namespace.nodes.is_retired(former)

"""Many processes change one tree; afterwards the mount shows what the host has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.mounting import mounted
from support.planting import plant
from support.processes import in_child
from support.tree_load import DIRECTORIES, collect, snapshot, start, unexpected

pytestmark = [pytest.mark.usefixtures("data_way"), pytest.mark.alone]

SECONDS = 2.0
PROCESSES = 6


def make_source(place: Path) -> Path:
    return plant(place, *(f"d{number}/" for number in range(DIRECTORIES)))


@pytest.mark.parametrize("cache", ["coherent", "none"])
def test_many_processes_on_one_tree(tmp_path: Path, cache: str) -> None:
    source = make_source(tmp_path / "source")
    with mounted(tmp_path, f"{source}::/", options=["--cache", cache]) as top:
        counts = collect(start([top], range(PROCESSES), SECONDS), SECONDS + 20)
        shown = in_child(snapshot, top)
        assert shown == snapshot(source)
    assert not unexpected(counts), counts
    for operation in ("create", "unlink", "rename", "link", "symlink", "mkdir", "listing"):
        assert counts[operation] > 3, counts


def test_many_processes_on_nested_preopens(tmp_path: Path) -> None:
    outer, inner = make_source(tmp_path / "outer"), make_source(tmp_path / "inner")
    plant(outer, "d1/nest/hidden=never seen", "d1/nest/d0/n1=nor this")
    hidden = snapshot(outer / "d1/nest")
    with mounted(tmp_path, f"{outer}::/", f"{inner}::/d1/nest") as top:
        tops = [top, top / "d1/nest"]
        counts = collect(start(tops, range(PROCESSES), SECONDS), SECONDS + 20)
        shown = in_child(snapshot, top)
    mask = frozenset(("d1/nest",))
    expected = snapshot(outer, mask) | snapshot(inner, prefix="d1/nest/")
    assert {name: thing for name, thing in shown.items() if name != "d1/nest"} == expected
    assert snapshot(outer / "d1/nest") == hidden
    assert not unexpected(counts), counts
    assert counts["rename EXDEV"] > 0 and counts["link EXDEV"] > 0


def test_two_mounts_and_the_host_on_one_tree(tmp_path: Path) -> None:
    """Changes from three sides; what the kernel keeps is old after 100 ms at most."""
    source = make_source(tmp_path / "source")
    with (
        mounted(tmp_path, f"{source}::/") as one,
        mounted(tmp_path, f"{source}::/", options=["--cache", "none"]) as two,
    ):
        guests = [*start([one], (1, 2), 2), *start([two], (3, 4), 2)]
        host = start([source], (5,), 2)
        counts = collect(guests, 22)
        assert not unexpected(collect(host, 22))
        os.sync()
        expected = snapshot(source)
        assert in_child(snapshot, one) == expected
        assert in_child(snapshot, two) == expected
    # Where it is told ESTALE the kernel looks names up afresh, once. The host moves these few
    # directories thousands of times a second, so that now and then it does so both times.
    lost = unexpected(counts)
    assert {what.split()[1] for what in lost} <= {"ESTALE"}, counts
    assert sum(lost.values()) <= 10 + sum(counts.values()) / 20, counts

"""The mount table as a tree: order, nesting, size (SPEC.md sections 1 and 2)."""

from __future__ import annotations

import random
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.errors import UsageError
from overlayd.table.guest_path import GuestPath
from overlayd.table.mount_tree import MountTable, build_table
from overlayd.table.preopen import Preopen, parse_preopen

guest_paths = st.lists(st.sampled_from([b"a", b"b", b"ab", b"c"]), max_size=4).map(tuple)


def table(*dirs: str) -> MountTable:
    return build_table(parse_preopen(text) for text in dirs)


def at(path: GuestPath) -> Preopen:
    return Preopen(f"/host/{len(path)}", path, read_only=False, origin=f"--dir {path!r}")


def shape(made: MountTable) -> list[tuple[GuestPath, int | None, tuple[bytes, ...]]]:
    """Everything the tree says, in an order of its own."""
    return [(b.path, b.mount, tuple(sorted(b.children))) for b in made.root.walk()]


def test_order_of_the_flags_never_matters() -> None:
    dirs = ("/1::/", "/2::/a", "/3::/a/b/c", "/4::/ab::ro")
    expected = table(*dirs)
    for order in permutations(dirs):
        made = table(*order)
        assert made.preopens == expected.preopens
        assert shape(made) == shape(expected)


@given(paths=st.sets(guest_paths, min_size=1, max_size=8), seed=st.integers(0, 2**16))
def test_the_tree_holds_every_mount_point_and_what_leads_there(
    paths: set[GuestPath], seed: int
) -> None:
    shuffled = sorted(paths)
    random.Random(seed).shuffle(shuffled)
    made = build_table(map(at, shuffled))
    assert [preopen.guest for preopen in made.preopens] == sorted(paths)
    branches = {branch.path: branch.mount for branch in made.root.walk()}
    assert {path for path, mount in branches.items() if mount is not None} == paths
    for path, mount in branches.items():
        assert any(below[: len(path)] == path for below in paths), "nothing leads nowhere"
        if mount is not None:
            assert made.preopens[mount].guest == path


@given(paths=st.sets(guest_paths, min_size=1, max_size=8))
def test_enclosing_is_the_longest_mount_point_above(paths: set[GuestPath]) -> None:
    made = build_table(map(at, paths))
    guests = [preopen.guest for preopen in made.preopens]
    for index, guest in enumerate(guests):
        above = [other for other in guests if other != guest and guest[: len(other)] == other]
        expected = guests.index(max(above, key=len)) if above else None
        assert made.enclosing(index) == expected


def test_paths_are_compared_by_component_not_by_prefix() -> None:
    made = table("/1::/lib", "/2::/lib64", "/3::/lib/x")
    assert made.enclosing(1) == 0  # /lib/x lies on /lib
    assert made.enclosing(2) is None  # /lib64 does not
    assert set(made.root.children) == {b"lib", b"lib64"}


@pytest.mark.parametrize("second", ["/2::/lib", "/2::lib", "/2:://lib/::ro", "/2::./lib"])
def test_two_entries_with_one_guest_path(second: str) -> None:
    with pytest.raises(UsageError) as caught:
        table("/1::/lib", "/0::/", second)
    words = str(caught.value)
    assert "--dir /1::/lib" in words
    assert f"--dir {second}" in words
    assert "both are attached at /lib" in words


def test_no_preopens() -> None:
    with pytest.raises(UsageError, match="at least one --dir"):
        build_table([])


def test_without_an_entry_at_the_root_the_root_is_synthetic() -> None:
    made = table("/1::/a/b")
    assert made.root.mount is None
    assert made.root.path == ()
    assert made.root.children[b"a"].mount is None
    assert made.root.children[b"a"].children[b"b"].mount == 0


def test_a_table_of_one_entry_at_the_root() -> None:
    made = table("/1::/")
    assert made.root.mount == 0
    assert not made.root.children


def test_two_hundred_levels() -> None:
    path = tuple(b"d%d" % level for level in range(200))
    made = build_table([at(path), at(path[:100]), at(())])
    branch = made.root
    for name in path:
        branch = branch.children[name]
    assert branch.path == path
    assert made.enclosing(2) == 1
    assert sum(1 for _ in made.root.walk()) == 201


def test_a_mount_point_at_each_of_two_hundred_levels() -> None:
    path = tuple(b"d" for _ in range(200))
    made = build_table(at(path[:depth]) for depth in reversed(range(201)))
    assert [made.enclosing(index) for index in range(201)] == [None, *range(200)]


def test_ten_thousand_preopens() -> None:
    paths = [(b"d%d" % (n % 100), b"e%d" % n) for n in range(10_000)]
    random.Random(1).shuffle(paths)
    made = build_table(map(at, paths))
    assert len(made.preopens) == 10_000
    assert len(made.root.children) == 100
    assert sum(1 for branch in made.root.walk() if branch.mount is not None) == 10_000


def test_the_tree_cannot_be_changed() -> None:
    made = table("/1::/a")
    with pytest.raises(TypeError):
        made.root.children[b"x"] = made.root  # type: ignore[index]
    with pytest.raises(AttributeError):
        made.root.mount = 3  # type: ignore[misc]

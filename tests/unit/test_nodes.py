"""Node numbers and lookup counts (SPEC.md section 3, rules 5 and 7)."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.core import nodes as nodes_module
from overlayd.core.assembly import Position, path_seed
from overlayd.core.nodes import Node, NodeTable
from overlayd.core.numbers import NUMBER_LIMIT, ROOT_NUMBER, NodeKey, scramble
from overlayd.host.fs import HostStat
from support.core_guest import fails, make_overlay

FILE, DIRECTORY = 0o100644, 0o040755


ONE, OTHER = path_seed(b"mount", ()), path_seed(b"mount", (b"a",))


def tree() -> Position:
    """The positions of a table with mount points at /, /a and /s/t."""
    below = Position((b"s", b"t"), None, {})
    above = Position((b"s",), None, {b"t": below})
    return Position((), None, {b"a": Position((b"a",), None, {}), b"s": above})


def node_table() -> NodeTable:
    return NodeTable(tree())


def status(mode: int = FILE, birth_ns: int = 1, dev: int = 9, ino: int = 7) -> HostStat:
    return HostStat(dev, ino, 1, birth_ns, mode, 1, 0, 0, 0, 0, 0, 4096, 0, 0, 0)


def obtain(table: NodeTable, ino: int = 7, birth_ns: int = 1) -> Node:
    return table.obtain(NodeKey(9, ino), status(birth_ns=birth_ns), None)


# -- numbers ------------------------------------------------------------------------------------


@given(
    dev=st.integers(0, 2**64 - 1),
    ino=st.integers(0, 2**64 - 1),
    seed=st.integers(0, 2**64 - 1),
)
def test_numbers_fit_a_javascript_number(dev: int, ino: int, seed: int) -> None:
    assert ROOT_NUMBER < scramble(seed, dev, ino) < NUMBER_LIMIT == 2**53


def test_the_root_is_number_one_and_always_there() -> None:
    table = node_table()
    assert table.get(1) is table.root
    assert table.forget(1, 1000) is None
    assert table.get(1) is table.root


def test_numbers_are_the_same_after_a_remount() -> None:
    def numbers() -> list[int]:
        root = tree()
        table = NodeTable(root)
        position = root.children[b"s"].children[b"t"]
        return [
            obtain(table).number,
            table.obtain(NodeKey(9, 5, ONE), status(DIRECTORY), None).number,
            table.obtain(NodeKey(9, 5, OTHER), status(DIRECTORY), None).number,
            table.obtain_position(position, None).number,
            table.obtain_empty(table.root, b"target").number,
        ]

    first = numbers()
    assert first == numbers()
    assert len(set(first)) == len(first)


def test_numbers_of_one_mount_do_not_depend_on_the_others(tmp_path: Path) -> None:
    """A preopen more changes every index; the guest path keeps the numbers."""

    def number(*dirs: str) -> int:
        overlay = make_overlay(*dirs)
        return overlay.names.lookup(overlay.names.lookup(ROOT_NUMBER, b"b").number, b"sub").number

    (tmp_path / "sub").mkdir()
    few = number(f"{tmp_path}::/", f"{tmp_path}::/b")
    assert few == number(f"{tmp_path}::/", f"{tmp_path}::/a", f"{tmp_path}::/b")


def test_names_of_one_file_share_a_node_and_mounts_of_one_directory_do_not() -> None:
    table = node_table()
    assert obtain(table) is obtain(table)
    one = table.obtain(NodeKey(9, 5, ONE), status(DIRECTORY), None)
    other = table.obtain(NodeKey(9, 5, OTHER), status(DIRECTORY), None)
    assert one is not other
    assert one.number != other.number


@given(pairs=st.sets(st.tuples(st.integers(0, 50), st.integers(0, 2**40)), min_size=2))
def test_objects_get_different_numbers(pairs: set[tuple[int, int]]) -> None:
    table = node_table()
    made = [table.obtain(NodeKey(d, i), status(dev=d, ino=i), None) for d, i in pairs]
    assert len({node.number for node in made}) == len(pairs)


@pytest.fixture
def collisions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("natural_number", "path_number", "spread"):
        monkeypatch.setattr(nodes_module, name, lambda *_: NUMBER_LIMIT - 1)


@pytest.mark.usefixtures("collisions")
def test_colliding_objects_stay_apart() -> None:
    table = node_table()
    made = [obtain(table, ino) for ino in range(5)]
    made.append(table.obtain_position(tree().children[b"s"], None))
    for name in (b"x", b"y"):
        made.append(table.obtain_empty(table.root, name))
        table.place(made[-1], table.root, name)
    assert len({node.number for node in made}) == len(made)
    assert all(ROOT_NUMBER < node.number < NUMBER_LIMIT for node in made)
    for ino, node in enumerate(made[:5]):
        assert table.find(NodeKey(9, ino)) is node
        assert obtain(table, ino) is node
    assert table.obtain_empty(table.root, b"y") is made[-1]


@pytest.mark.usefixtures("collisions")
def test_a_colliding_object_is_found_after_the_other_was_forgotten() -> None:
    table = node_table()
    first, second = obtain(table, 1), obtain(table, 2)
    table.lend(first)
    table.lend(second)
    assert table.forget(first.number, 1) is first
    assert table.find(NodeKey(9, 2)) is second
    assert table.find(NodeKey(9, 1)) is None
    assert table.forget(second.number, 1) is second
    assert table.find(NodeKey(9, 2)) is None
    assert len(table) == 1


# -- lookup counts ------------------------------------------------------------------------------


def test_a_node_lives_until_the_last_reference_is_back() -> None:
    table = node_table()
    node = obtain(table)
    table.lend(node)
    table.lend(node, 2)
    assert table.forget(node.number, 2) is None
    assert table.get(node.number) is node
    assert table.forget(node.number, 1) is node
    with fails(errno.ESTALE):
        table.get(node.number)


def test_more_references_back_than_lent_is_a_defect() -> None:
    table = node_table()
    node = obtain(table)
    table.lend(node)
    with pytest.raises(AssertionError, match="more often"):
        table.forget(node.number, 2)


def test_numbers_never_given_out() -> None:
    table = node_table()
    with fails(errno.ESTALE):
        table.get(123456)
    assert table.forget(123456, 1) is None


def test_a_node_obtained_and_not_lent_can_be_dropped() -> None:
    table = node_table()
    node = obtain(table)
    table.discard_if_unused(node)
    assert len(table) == 1
    kept = obtain(table)
    table.lend(kept)
    table.discard_if_unused(kept)
    assert table.get(kept.number) is kept


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60))
def test_counts_add_up(steps: list[tuple[int, bool]]) -> None:
    table = node_table()
    lent = dict.fromkeys(range(4), 0)
    for ino, give in steps:
        if give:
            table.lend(obtain(table, ino))
            lent[ino] += 1
        elif lent[ino]:
            number = obtain(table, ino).number
            lent[ino] -= 1
            assert (table.forget(number, 1) is not None) == (lent[ino] == 0)
    assert len(table) == 1 + sum(1 for count in lent.values() if count)


# -- inode numbers used again -------------------------------------------------------------------


def test_an_inode_number_used_again_is_a_new_object() -> None:
    table = node_table()
    old = obtain(table, birth_ns=1)
    table.lend(old)
    new = obtain(table, birth_ns=2)
    assert new is not old
    assert new.number != old.number
    assert old.key != new.key, "the old one matches no host object any more"
    assert obtain(table, birth_ns=2) is new
    assert table.get(old.number) is old, "the kernel still knows it"
    assert table.forget(old.number, 1) is old


def test_another_type_under_one_inode_number_is_a_new_object() -> None:
    table = node_table()
    old = obtain(table)
    table.lend(old)
    new = table.obtain(NodeKey(9, 7), status(0o010644), None)
    assert new is not old


# -- names --------------------------------------------------------------------------------------


def test_names_come_and_go() -> None:
    table = node_table()
    node = obtain(table)
    table.place(node, table.root, b"one")
    table.place(node, table.root, b"two")
    table.place(node, table.root, b"one")
    assert [place.name for place in node.places] == [b"one", b"two"]
    assert table.displace(node, table.root, b"one") is False
    assert [place.name for place in node.places] == [b"two"]
    assert table.displace(node, table.root, b"two") is True
    assert node.places == []


def test_a_node_that_was_forgotten_while_it_was_being_lent() -> None:
    """A worker thread has looked it up, and the last reference comes back before it answers."""
    table = node_table()
    node = obtain(table)
    table.lend(node)
    assert table.forget(node.number, 1) is node
    table.lend(node)
    assert table.get(node.number) is node is table.find(NodeKey(9, 7))
    assert table.forget(node.number, 1) is node
    again = obtain(table)
    assert again is not node and again.number == node.number
    table.lend(node)
    assert table.get(node.number) is again and again.lookups == 1


def test_a_directory_has_one_name_and_remembers_its_parent() -> None:
    table = node_table()
    node = table.obtain(NodeKey(9, 5, ONE), status(DIRECTORY), None)
    table.place(node, table.root, b"one")
    table.place(node, table.root, b"two")
    assert [place.name for place in node.places] == [b"two"]
    assert table.displace(node, table.root, b"two") is True
    assert node.parent is table.root, "its `..` still means something"


def test_the_number_of_names_kept_is_bounded() -> None:
    table = node_table()
    node = obtain(table)
    for index in range(1000):
        table.place(node, table.root, b"n%d" % index)
    assert len(node.places) <= 65
    assert node.places[0].name == b"n999"


def test_a_rekeyed_node_keeps_its_number_and_is_found_by_its_new_key() -> None:
    table = node_table()
    key, moved = NodeKey(9, 7, -5), NodeKey(9, 7, -6)
    node = table.obtain(key, status(0o120777), None)
    number = node.number
    table.rekey(node, moved)
    assert table.find(moved) is node
    assert table.find(key) is None
    assert node.number == number

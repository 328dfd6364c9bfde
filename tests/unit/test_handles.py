"""Handles: given out once, found by number, closed once."""

from __future__ import annotations

import errno
import os

from overlayd.core.handles import HandleTable
from overlayd.core.nodes import Node
from overlayd.core.numbers import NodeKey
from overlayd.host.fs import Fd
from support.core_guest import ROOT, fails


def node() -> Node:
    return Node(5, NodeKey(3, 4), 0o100000, None, None)


def test_numbers_are_never_used_again() -> None:
    table = HandleTable()
    first = table.open(node(), None, os.O_RDONLY, ROOT)
    table.close(first.number)
    assert table.open(node(), None, os.O_RDONLY, ROOT).number != first.number


def test_unknown_and_closed_handles() -> None:
    table = HandleTable()
    handle = table.open(node(), None, os.O_RDONLY, ROOT)
    assert table.get(handle.number) is handle
    table.close(handle.number)
    for number in (0, 99, handle.number):
        with fails(errno.EBADF):
            table.get(number)
        with fails(errno.EBADF):
            table.close(number)
    assert len(table) == 0


def test_handles_on_a_node() -> None:
    table, one, other = HandleTable(), node(), node()
    first = table.open(one, None, os.O_RDONLY, ROOT)
    second = table.open(one, None, os.O_RDWR, ROOT)
    table.open(other, None, os.O_RDONLY, ROOT)
    assert one.handles == {first.number, second.number}
    table.close(first.number)
    assert one.handles == {second.number}
    table.close(second.number)
    assert one.handles is None


def test_what_is_open_on_a_node() -> None:
    table, one, other = HandleTable(), node(), node()
    assert table.descriptor_on(one) is None
    table.open(one, None, os.O_RDONLY, ROOT)
    assert table.descriptor_on(one) is None
    fd = Fd(os.open("/", os.O_PATH))
    handle = table.open(one, fd, os.O_RDONLY, ROOT)
    assert table.descriptor_on(one) is fd
    table.move(one, other)
    assert table.descriptor_on(one) is None
    assert table.descriptor_on(other) is fd
    table.close(handle.number)
    assert table.descriptor_on(other) is None


def test_what_a_handle_tells() -> None:
    table = HandleTable()
    writable = {
        flags: table.open(node(), None, flags, ROOT).writable
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC)
    }
    assert list(writable.values()) == [False, True, True, False]
    synthetic = table.open(Node(6, None, 0o040000, None, None), None, os.O_RDONLY, ROOT)
    assert synthetic.device == 0
    assert table.open(node(), None, os.O_RDONLY, ROOT).device == 3

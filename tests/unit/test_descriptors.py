"""The cache of descriptors: bounded, least recently used out first, gives way at the limit."""

from __future__ import annotations

import errno
import os

import pytest

from overlayd.core.descriptors import DescriptorCache
from overlayd.core.nodes import Node
from overlayd.host.fs import Fd
from support.core_guest import fails


def nodes(count: int) -> list[Node]:
    return [Node(10 + number, None, 0o040000, None, None) for number in range(count)]


def descriptor() -> Fd:
    return Fd(os.open("/", os.O_PATH | os.O_CLOEXEC))


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def test_it_never_holds_more_than_its_capacity() -> None:
    cache = DescriptorCache(3)
    fds = [descriptor() for _ in range(5)]
    numbers = [fd.number for fd in fds]
    for node in nodes(5):
        cache.put(node, fds.pop(0))
    assert len(cache) == 3
    assert [is_open(number) for number in numbers] == [False, False, True, True, True]


def test_what_was_used_stays() -> None:
    cache = DescriptorCache(2)
    first, second, third = nodes(3)
    cache.put(first, descriptor())
    cache.put(second, descriptor())
    assert cache.get(first) is not None
    cache.put(third, descriptor())
    assert cache.get(second) is None
    assert cache.get(first) is not None


def test_a_descriptor_in_use_survives_being_dropped() -> None:
    cache = DescriptorCache(2)
    (node,) = nodes(1)
    cache.put(node, descriptor())
    used = cache.get(node)
    cache.drop(node)
    cache.drop(node)
    assert cache.get(node) is None
    assert used is not None and is_open(used.number)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_at_the_limit_the_older_half_goes_and_it_is_tried_again(number: int) -> None:
    cache = DescriptorCache(8)
    kept = nodes(8)
    for node in kept:
        cache.put(node, descriptor())
    left: list[int] = []

    def open_it() -> str:
        left.append(len(cache))
        if len(cache) > 3:
            raise OSError(number, "too many")
        return "opened"

    assert cache.opening(open_it) == "opened"
    assert left == [8, 4, 2]
    assert cache.get(kept[-1]) is not None


def test_with_nothing_to_give_up_the_error_is_told() -> None:
    def open_it() -> None:
        raise OSError(errno.EMFILE, "too many")

    with fails(errno.EMFILE):
        DescriptorCache(8).opening(open_it)


def test_other_errors_cost_no_descriptors() -> None:
    cache = DescriptorCache(8)
    cache.put(nodes(1)[0], descriptor())

    def open_it() -> None:
        raise OSError(errno.EACCES, "no")

    with fails(errno.EACCES):
        cache.opening(open_it)
    assert len(cache) == 1


def test_a_descriptor_closes_once() -> None:
    fd = descriptor()
    number = fd.number
    fd.close()
    assert fd.number == -1
    reused = os.open("/", os.O_PATH)
    try:
        assert reused == number, "the lowest free number is given out again"
        fd.close()
        del fd
        assert is_open(reused), "closing twice does not close what came after"
    finally:
        os.close(reused)


def test_what_was_removed_lingers_until_it_is_let_go_of() -> None:
    cache = DescriptorCache(3)
    dropped, evicted, kept, opened = nodes(4)
    for node in (dropped, evicted, kept):
        cache.put_removed(node, descriptor())
    assert cache.lingering() == {dropped, evicted, kept}
    cache.drop(dropped)
    cache.drop(dropped)
    assert (cache.lingering(), cache.freed) == ({evicted, kept}, 1)
    cache.put_removed(opened, descriptor())
    cache.put(nodes(1)[0], descriptor())
    assert (cache.lingering(), cache.freed) == ({kept, opened}, 2)
    opened.handles = {1}
    assert cache.lingering() == {kept}
    cache.stop_expecting({kept})
    assert (cache.lingering(), cache.freed) == (set(), 2)
    assert cache.get(kept) is not None

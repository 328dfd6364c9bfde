"""Which way data goes: the first open decides, and no number is kept or given back twice."""

from __future__ import annotations

import stat

from overlayd.core.nodes import Node
from overlayd.core.numbers import NodeKey
from overlayd.core.ways import Way, Ways
from overlayd.host.fs import Fd

FD = Fd(-1)


class Kernel:
    """Takes files until it is told not to."""

    def __init__(self) -> None:
        self.given: list[int] = []
        self.taken_back: list[int] = []
        self.refuses = False

    def register(self, fd: Fd) -> int:
        assert fd is FD
        if self.refuses:
            return 0
        self.given.append(len(self.given) + 1)
        return self.given[-1]

    def give_back(self, backing: int) -> None:
        assert backing in self.given and backing not in self.taken_back
        self.taken_back.append(backing)


def ways_of(kernel: Kernel | None) -> Ways:
    ways = Ways()
    ways.registry = kernel
    return ways


def node() -> Node:
    return Node(7, NodeKey(3, 4), stat.S_IFREG, None, None)


def join(ways: Ways, at: Node, *, writes: bool = False, fd: Fd | None = FD) -> Way:
    return ways.join(at, lambda: fd, writes=writes, by_root=True)


def test_one_number_for_all_who_have_it_open() -> None:
    kernel, at = Kernel(), node()
    ways = ways_of(kernel)
    first, second = join(ways, at), join(ways, at, writes=True)
    assert first is second and (first.backing, first.writers, ways.backings) == (1, 1, 1)
    ways.leave(second, writes=True)
    assert (first.writers, kernel.taken_back) == (0, [])
    ways.leave(first, writes=False)
    assert (ways.backings, kernel.taken_back) == (0, [1])
    assert join(ways, at).backing == 2


def test_who_comes_later_follows() -> None:
    kernel, at = Kernel(), node()
    ways = ways_of(kernel)
    kernel.refuses = True
    first = join(ways, at)
    kernel.refuses = False
    assert (join(ways, at, writes=True).backing, ways.opened) == (0, 0)
    ways.leave(first, writes=True)
    ways.leave(first, writes=False)
    first = join(ways, at)
    assert first.backing and join(ways, at, fd=None).backing == first.backing
    assert kernel.given == [1]


def test_what_goes_through_us() -> None:
    assert join(ways_of(None), node()).backing == 0
    kernel = Kernel()
    ways = ways_of(kernel)
    assert join(ways, node(), fd=None).backing == 0
    ways.holds_back = True
    assert join(ways, node(), writes=True).backing == 0
    assert join(ways, node()).backing == 1


def test_a_kernel_that_takes_nothing_is_given_nothing_back() -> None:
    kernel = Kernel()
    kernel.refuses = True
    ways = ways_of(kernel)
    ways.leave(join(ways, node()), writes=False)
    assert (kernel.taken_back, ways.backings) == ([], 0)

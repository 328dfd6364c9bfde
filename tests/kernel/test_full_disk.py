"""A full host disk: what was removed a moment ago is waited for, and only that."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
import trio
from pyfuse3 import FUSEError

from kernel.test_handlers import REQUESTS
from overlayd.core.nodes import Node
from overlayd.host.fs import Fd
from support.fake_core import FakeCore

REMOVED = Node(7, None, 0o100000, None, None)


def full_until(core: FakeCore, has_room: Callable[[], bool], number: int = errno.ENOSPC) -> None:
    """Every method says NUMBER as long as the host HAS no ROOM."""

    def answer(*_: object) -> int:
        if not has_room():
            raise OSError(number, "no room")
        return 3

    core.default = answer
    core.answers["may_block"] = lambda _: False


def ask(core: FakeCore, name: str, meanwhile: Callable[[], None] = lambda: None) -> object:
    """What the handler NAME answers (the errno where it fails) while MEANWHILE happens."""

    async def call() -> object:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(later)
            try:
                return await getattr(core.operations(), name)(*REQUESTS[name])
            except FUSEError as error:
                return error.errno

    async def later() -> None:
        await trio.sleep(0.02)
        meanwhile()

    return trio.run(call)


def asked(core: FakeCore) -> list[str]:
    """What the core was asked to do, in order."""
    return [name for name, _, _ in core.calls if name != "may_block"]


def core_that_pins() -> FakeCore:
    core = FakeCore()
    core.namespace.cache.put_removed(REMOVED, Fd(os.open("/", os.O_PATH | os.O_CLOEXEC)))
    return core


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_write_waits_for_what_was_removed(number: int) -> None:
    core = core_that_pins()
    cache = core.namespace.cache
    full_until(core, lambda: len(cache) == 0, number)
    assert ask(core, "write", lambda: cache.drop(REMOVED)) == 3
    assert len(asked(core)) == 2


def test_what_a_guest_keeps_is_waited_for_once() -> None:
    core = core_that_pins()
    full_until(core, lambda: False)
    assert ask(core, "write") == errno.ENOSPC
    assert len(asked(core)) == 1
    assert core.namespace.cache.lingering() == set()
    assert core.namespace.cache.get(REMOVED) is not None


def test_it_is_tried_once_more_and_not_again() -> None:
    core = core_that_pins()
    full_until(core, lambda: False)
    assert ask(core, "mkdir", lambda: core.namespace.cache.drop(REMOVED)) == errno.ENOSPC
    assert len(asked(core)) == 2


def test_room_that_came_while_it_was_tried_counts() -> None:
    """A large write is under way in a thread when the loop reads what the kernel forgets."""
    core = core_that_pins()
    cache = core.namespace.cache
    tries: list[int] = []

    def has_room() -> bool:
        tries.append(len(cache))
        cache.drop(REMOVED)
        return len(tries) > 1

    full_until(core, has_room)
    assert ask(core, "write") == 3
    assert tries == [1, 0]


@pytest.mark.parametrize("name", ["fsync", "flush", "release"])
def test_what_is_told_once_is_not_asked_twice(name: str) -> None:
    """The host tells of a failed writeback once: asked again, it would say that all is well."""
    core = core_that_pins()
    core.namespace.has_slow_source = True
    full_until(core, lambda: False)
    assert ask(core, name, lambda: core.namespace.cache.drop(REMOVED)) == errno.ENOSPC
    assert asked(core) == [name]


def test_nothing_removed_nothing_waited_for() -> None:
    core = FakeCore()
    full_until(core, lambda: False)
    assert ask(core, "create") == errno.ENOSPC
    assert len(asked(core)) == 1

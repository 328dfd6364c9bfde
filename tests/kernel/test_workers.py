"""Threads that wait for devices: how many, for whom, and who hears of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable

import pytest
import trio

from overlayd.kernel import workers as module
from overlayd.kernel.workers import Workers

SLOW, FAST = 1, 2


def run(main: Callable[[], Awaitable[None]]) -> None:
    async def in_time() -> None:
        with trio.fail_after(20):
            await main()

    trio.run(in_time)


def test_what_is_found_out_comes_back() -> None:
    async def main() -> None:
        workers = Workers()
        here = threading.get_ident()
        assert await workers.run(FAST, threading.get_ident) != here
        with pytest.raises(ZeroDivisionError):
            await workers.run(FAST, lambda: 1 // 0)
        assert await workers.run(FAST, lambda: "again") == "again"

    run(main)


def test_a_device_has_a_limit_of_its_own() -> None:
    async def main() -> None:
        workers, release = Workers(), threading.Event()
        begun: list[None] = []
        ended: list[None] = []
        most = []

        def wait() -> None:
            begun.append(None)
            most.append(len(begun) - len(ended))
            release.wait(10)
            ended.append(None)

        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(workers.run, SLOW, wait)
            for _ in range(3):
                await workers.run(FAST, lambda: None)
            while len(begun) < module._THREADS_PER_DEVICE:
                await trio.sleep(0.001)
            release.set()
        assert len(begun) == 40
        assert max(most) == module._THREADS_PER_DEVICE
        assert not workers._running and not workers._waiting

    run(main)


def test_nobody_hears_of_what_was_given_up() -> None:
    async def main() -> None:
        workers, release = Workers(), threading.Event()
        asked: list[str] = []
        async with trio.open_nursery() as nursery:
            for _ in range(module._THREADS_PER_DEVICE):
                nursery.start_soon(workers.run, SLOW, lambda: release.wait(10))
            await trio.sleep(0.01)
            nursery.start_soon(workers.run, SLOW, lambda: asked.append("before it was asked"))
            await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        release.set()
        assert await workers.run(SLOW, lambda: "the next") == "the next"
        assert asked == []

    run(main)


def test_threads_that_nobody_needs_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.002)

    async def main() -> None:
        workers = Workers()
        before = set(threading.enumerate())
        for pause in (0, 0.001, 0.002, 0.003) * 25:  # so that some are taken as they go
            assert await workers.run(FAST, lambda: 5) == 5
            time.sleep(pause)
        for thread in set(threading.enumerate()) - before:
            thread.join(10)
            assert not thread.is_alive()
        assert workers._idle == []

    run(main)


def test_there_can_be_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request is told, and none is waited for in vain once there can be some again."""

    async def main() -> None:
        workers = Workers()
        with monkeypatch.context() as limited:
            limited.setattr(threading.Thread, "start", refuse)
            for _ in range(2 * module._THREADS_PER_DEVICE):
                with pytest.raises(BlockingIOError):
                    await workers.run(SLOW, lambda: None)
        assert await workers.run(SLOW, lambda: "answered") == "answered"

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    run(main)

"""Taking turns at reading requests, and when the next one is polled for.

The tasks are those of pyfuse3's `_session_loop`, in Python and line by line, so that every order of
waiting, ending and starting can be had; the real ones serve in every test with a mount.
"""

from __future__ import annotations

import random
import select
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pyfuse3
import pytest
import trio

from overlayd.kernel.loop import RequestLoop
from overlayd.kernel.workers import Workers

MIN_TASKS = 1
STOP = b"stop"


class Session:
    """What pyfuse3 does around the two calls that are replaced."""

    def __init__(self, loop: RequestLoop, answer: Callable[[Session, bytes], object]) -> None:
        self.loop = loop
        self.answer = answer
        self.ours, self.guest = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.exited = False
        self.readers = 0
        self.tasks = 0
        self.most_tasks = 0
        self.answered: list[bytes] = []

    async def main(self, max_tasks: int = 99) -> None:
        async with trio.open_nursery() as nursery:
            self.tasks = 1
            nursery.start_soon(self._task, nursery, max_tasks)

    async def _wait(self) -> bool:
        self.readers += 1
        try:
            async with self.loop:
                if self.exited:
                    return False
                await self.loop.wait_readable(self.ours.fileno())
        except trio.ClosedResourceError:
            return False
        finally:
            self.readers -= 1
        return True

    async def _task(self, nursery: trio.Nursery, max_tasks: int) -> None:
        while not self.exited:
            if self.readers > MIN_TASKS or not await self._wait():
                break
            request = self.ours.recv(100)
            if not self.readers and self.tasks < max_tasks:
                self.tasks += 1
                self.most_tasks = max(self.tasks, self.most_tasks)
                nursery.start_soon(self._task, nursery, max_tasks)
            if not request:
                self.exited = True
                break
            answer = self.answer(self, request)
            if answer is not None:
                await answer  # type: ignore[misc]
            self.answered.append(request)
            if request == STOP:
                self.exited = True
                self.loop.notify_closing(self.ours.fileno())
        self.tasks -= 1

    def ask(self, *requests: bytes) -> None:
        for request in requests:
            self.guest.send(request)

    def close(self) -> None:
        self.ours.close()
        self.guest.close()


@contextmanager
def session(
    answer: Callable[[Session, bytes], object],
    processors: int = 2,
    workers: Workers | None = None,
) -> Iterator[Session]:
    it = Session(RequestLoop(processors, workers), answer)
    yield it
    it.close()


def run_beside(session: Session, other: Callable[[], Awaitable[None]], max_tasks: int = 99) -> None:
    """Serve SESSION to its end, with the task OTHER beside it."""

    async def main() -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(session.main, max_tasks)
                nursery.start_soon(other)

    trio.run(main)


async def wait_in_block(session: Session, seconds: float) -> None:
    with session.loop.away():
        await trio.sleep(seconds)


@pytest.mark.parametrize("processors", [1, 2])
@pytest.mark.parametrize("max_tasks", [2, 3, 99])
@pytest.mark.parametrize("seed", range(8))
def test_every_request_is_answered_whatever_waits(
    processors: int, max_tasks: int, seed: int
) -> None:
    chance = random.Random(seed)
    waiting = chance.choice([0.0, 0.1, 0.5, 0.9])

    def answer(session: Session, _: bytes) -> object:
        if chance.random() >= waiting:
            return None
        return wait_in_block(session, chance.choice([0, 0, 0.0001, 0.002]))

    with session(answer, processors) as it:
        requests = [b"%d" % number for number in range(150)]
        it.ask(*requests)

        async def ask_and_end() -> None:
            while len(it.answered) < 150:
                await trio.sleep(0.001)
            for number in range(20):  # one by one, with all tasks at rest in between
                it.ask(b"later %d" % number)
                while len(it.answered) < 151 + number:
                    await trio.sleep(0)
            it.ask(STOP)

        run_beside(it, ask_and_end, max_tasks)
        assert sorted(it.answered)[:150] == sorted([*requests, STOP])[:150]
        assert len(it.answered) == 171
        assert it.tasks == 0
        assert it.most_tasks <= max_tasks


async def wait_in_thread(session: Session, workers: Workers, device: int, seconds: float) -> None:
    with session.loop.away():
        await workers.run(device, partial(time.sleep, seconds))


async def expect(session: Session, late: int, came: list[bool]) -> None:
    """What is there when it is looked for the LATEth time."""
    times = iter(range(late))
    came.append(await session.loop.soon(lambda: next(times, None) is None))


@pytest.mark.parametrize("processors", [1, 2])
@pytest.mark.parametrize("seed", range(8))
def test_all_that_comes_from_threads_or_soon_is_answered(processors: int, seed: int) -> None:
    chance = random.Random(seed)
    workers = Workers()
    came: list[bool] = []

    def answer(session: Session, request: bytes) -> object:
        match chance.choice(["at once", "thread", "soon", "never"]) if request != STOP else "":
            case "thread":
                seconds = chance.choice([0, 0, 0.0001, 0.002])
                return wait_in_thread(session, workers, chance.randrange(3), seconds)
            case "soon":
                return expect(session, chance.randrange(3), came)
            case "never":
                return expect(session, 1 << 60, came)
        return None

    with session(answer, processors, workers) as it:
        it.ask(*[b"%d" % number for number in range(150)])

        async def ask_and_end() -> None:
            while len(it.answered) < 150:
                await trio.sleep(0.001)
            for number in range(30):
                it.ask(b"later %d" % number)
                while len(it.answered) < 151 + number:
                    await trio.sleep(0)
            it.ask(STOP)

        run_beside(it, ask_and_end)
        assert len(it.answered) == 181
        assert it.tasks == 0
        assert set(came) == {True, False}


@pytest.mark.parametrize("unmounted", [True, False])
def test_at_the_end_nothing_is_expected_any_more(unmounted: bool) -> None:
    came: list[bool] = []

    def answer(session: Session, request: bytes) -> object:
        return expect(session, 1 << 60, came) if request == b"never" else None

    with session(answer) as it:
        if unmounted:
            it.ask(*[b"never"] * 5)
            it.guest.close()
        else:
            it.ask(*[b"never"] * 5, STOP)
        run_beside(it, trio.lowlevel.checkpoint)
        assert came == [False] * (1 if unmounted else 5)
        assert it.tasks == 0


def test_what_waits_keeps_nobody_else_waiting() -> None:
    release = trio.Event()

    async def wait_for_others(session: Session) -> None:
        with session.loop.away():
            await release.wait()

    def answer(session: Session, request: bytes) -> object:
        if request == b"last":
            release.set()
        return wait_for_others(session) if request == b"slow" else None

    with session(answer) as it:

        async def ask() -> None:
            it.ask(b"quick")
            await trio.sleep(0.01)  # one task waits for a request now, one for its turn
            it.ask(*[b"slow"] * 5, b"quick", b"last", STOP)

        run_beside(it, ask)
        assert it.answered[:3] == [b"quick", b"quick", b"last"]


def test_tasks_that_are_not_needed_end() -> None:
    def answer(session: Session, request: bytes) -> object:
        return wait_in_block(session, 0.01) if request == b"slow" else None

    counts = []
    with session(answer) as it:
        it.ask(*[b"slow"] * 20)

        async def look_and_end() -> None:
            while len(it.answered) < 20:
                await trio.sleep(0.001)
            for _ in range(40):
                it.ask(b"quick")
                await trio.sleep(0.001)
            counts.append(it.tasks)
            it.ask(STOP)

        run_beside(it, look_and_end)
        assert it.most_tasks > 10
        assert counts == [2]


@pytest.mark.parametrize("waiters", [0, 1, 5])
def test_the_end_of_the_connection_ends_every_task(waiters: int) -> None:
    def answer(session: Session, request: bytes) -> object:
        return wait_in_block(session, 0.02) if request == b"slow" else None

    with session(answer) as it:
        it.ask(*[b"slow"] * waiters)

        async def hang_up() -> None:
            while len(it.answered) < waiters:
                await trio.sleep(0.001)
            it.guest.close()

        run_beside(it, hang_up)
        assert it.tasks == 0


def test_other_tasks_get_their_turn_while_requests_keep_coming() -> None:
    turns = 0

    def answer(session: Session, request: bytes) -> object:
        if request != STOP:
            session.ask(b"again" if turns < 5 else STOP)
        return None

    async def other() -> None:
        nonlocal turns
        while turns < 5:
            turns += 1
            await trio.sleep(0)

    with session(answer) as it:
        it.ask(b"first")

        run_beside(it, other)
    assert turns == 5


# -- polling --------------------------------------------------------------------------------------


def polls_of_idle_time(processors: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the descriptor was polled after each of some requests that came far apart."""
    polls = [0]

    class Poll:
        def __init__(self) -> None:
            self.real = real_poll()
            self.register = self.real.register

        def poll(self, timeout: int) -> list[tuple[int, int]]:
            polls[-1] += 1
            seen: list[tuple[int, int]] = self.real.poll(timeout)
            return seen

    real_poll = select.poll
    monkeypatch.setattr(select, "poll", Poll)
    with session(lambda *_: None, processors) as it:

        async def ask_now_and_then() -> None:
            it.ask(b"first")
            await trio.sleep(0.02)
            it.loop._budget = it.loop._patience  # as after requests that came close together
            for _ in range(6):
                await trio.sleep(0.02)
                polls.append(0)
                it.ask(b"alone")
            await trio.sleep(0.02)
            it.ask(STOP)

        run_beside(it, ask_now_and_then)
    return polls


def test_nobody_polls_once_requests_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    polls = polls_of_idle_time(2, monkeypatch)
    assert max(polls[1:3]) > polls[-1]
    assert polls[-1] <= 4


def test_one_processor_never_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(count <= 4 for count in polls_of_idle_time(1, monkeypatch)[1:])


def test_while_a_request_waits_the_loop_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its thread has found out is to be answered at once."""
    loop = RequestLoop(2)
    loop._budget = 10**12
    ours, guest = socket.socketpair()

    async def main() -> float:
        with loop.away(), trio.move_on_after(0.01):
            begun = time.monotonic()
            await loop.wait_readable(ours.fileno())
        return time.monotonic() - begun

    assert trio.run(main) < 5
    ours.close()
    guest.close()


def test_pyfuse3_waits_as_the_loop_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyfuse3, "trio", trio)
    loop = RequestLoop(2)
    loop.install()
    replaced = pyfuse3.trio  # type: ignore[attr-defined]
    assert replaced.Lock() is loop
    assert replaced.lowlevel.wait_readable == loop.wait_readable
    assert replaced.open_nursery is trio.open_nursery
    assert replaced.ClosedResourceError is trio.ClosedResourceError
    assert replaced.lowlevel.current_task is trio.lowlevel.current_task

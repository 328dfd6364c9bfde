"""Waiting for requests: by asking for a moment whether the next one is there, then asleep.

Waking up costs more than most answers do. While requests keep coming, the loop therefore asks the
kernel again and again for some microseconds before it parks; when they stop, it does not ask at all
and nothing runs. pyfuse3 finds `trio` in its own module, as its asyncio mode makes use of, and two
things are put in its place there: the lock by which its tasks take turns at reading, and the wait
for the descriptor.

Where requests are answered as they are read (`direct`), it is reading that asks again and again,
and all that is left to do here is to let others have their turn, and to sleep.

The rule of the turns: whoever has read a request keeps the turn in mind only as free, and takes it
again once the request is answered, without any other task having run. A task that has to wait on
the way says so (`away`), and one that waits for its turn is woken then.
"""

import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import outcome

from overlayd.kernel import wire

# isort: split
# What comes from the room above has to be loaded before this.
import pyfuse3
import trio

from overlayd.host.bell import Bell
from overlayd.kernel.workers import Workers

_PATIENCE_NS = 80_000
"""For how long the next request is polled for; where tried, a busy guest's came within 60 us."""
_TURN_NS = 4_000_000
"""After so long the daemon's other tasks get their turn, even if requests keep coming."""
_AWAY_TURN_NS = 500_000
"""The same while a request waits for something: what its thread has found out is to be answered."""
_AWAY_NS = 5_000_000
"""For so long a request that waits for something keeps the loop from polling."""
_LISTEN_MS = 1
"""For so long its answer is slept for here, with nothing else that the daemon does going on."""
_EXPECTED_NS = 250_000
"""For so long it is looked whether something is there that a fast disk is about to bring."""
_MOST_EXPECTED = 64
"""Far fewer than there are tasks: one of the others reads requests, and looks."""
_BROKEN = select.POLLERR | select.POLLHUP | select.POLLNVAL


class _Expected:
    """Something that is about to be there, and the task that waits for it."""

    __slots__ = ("is_there", "task", "until")

    def __init__(self, is_there: Callable[[], bool]) -> None:
        self.is_there = is_there
        self.task = trio.lowlevel.current_task()
        self.until = time.perf_counter_ns() + _EXPECTED_NS


class RequestLoop:
    """Takes the place of `trio.Lock` and of waiting for the descriptor in pyfuse3's loop."""

    def __init__(self, processors: int, workers: Workers | None = None) -> None:
        """With one processor only, polling would keep the guest from asking."""
        self._workers = workers
        self._expected: list[_Expected] = []
        self._bell: Bell | None = None
        self._either: select.poll | None = None
        """Whether there is a request, or the bell has been rung."""
        self._patience = _PATIENCE_NS if processors > 1 else 0
        self._budget = 0
        self._next_turn = 0
        self._away = 0
        self._away_since = 0
        self._poll: select.poll | None = None
        self._ends = False
        self._taken = False
        self.reads_ahead = False
        """Whether reading looks for requests itself, and never waits."""
        self._waiting = trio.lowlevel.ParkingLot()

    def install(self) -> None:
        """Have pyfuse3 wait as this does, from the next `pyfuse3.main` on."""
        pyfuse3.trio = _TrioForPyfuse3(self)  # type: ignore[attr-defined]

    @contextmanager
    def away(self) -> Iterator[None]:
        """For a request that waits for something in the block: another task reads meanwhile."""
        self._away += 1
        self._away_since = now = time.perf_counter_ns()
        self._next_turn = min(self._next_turn, now + _AWAY_TURN_NS)
        if not self._taken:
            self._waiting.unpark()
        try:
            yield
        finally:
            self._away -= 1

    # -- pyfuse3's lock -------------------------------------------------------------------------

    async def __aenter__(self) -> None:
        while self._taken:
            await self._waiting.park()
        self._taken = True

    async def __aexit__(self, *_: object) -> None:
        """Free the turn and wake nobody before the end, since whoever had it takes it again.

        (A task that pyfuse3 ends because two others wait has left one of them with the turn.)
        """
        self._taken = False
        if self._ends:
            self._waiting.unpark_all()

    # -- pyfuse3's wait -------------------------------------------------------------------------

    async def wait_readable(self, descriptor: int) -> None:
        """Return when there is a request to be read; raises ClosedResourceError at the end."""
        if time.perf_counter_ns() >= self._next_turn:
            await trio.lowlevel.checkpoint()
            self._begin_turn(time.perf_counter_ns())
        if self._must_wait():
            await self._wait(descriptor)
        if self.reads_ahead:
            self._read_ahead()

    def _must_wait(self) -> bool:
        """Whether the next read would not look for requests, or would keep something waiting."""
        return not self.reads_ahead or self._ends or bool(self._expected) or wire.found_nothing()

    async def _wait(self, descriptor: int) -> None:
        if self._poll is None:
            self._poll = select.poll()
            self._poll.register(descriptor, select.POLLIN)
        now = time.perf_counter_ns()
        while True:
            if self._ends:
                raise trio.ClosedResourceError
            ready = self._look() if self._expected else 0
            events = self._ask(self._poll, now)
            if events:
                break
            if ready or self._expected:
                await self._let_go_on(ready)
            elif not await self._listen(descriptor, now):
                await trio.lowlevel.wait_readable(descriptor)
                self._learn(now)
                continue
            now = time.perf_counter_ns()
        if events[0][1] & _BROKEN:  # unmounted: every task is to find out
            self._end()

    def _read_ahead(self) -> None:
        """Let the next read look for requests itself."""
        now = time.perf_counter_ns()
        # What a thread has found out can be answered only once this loop sleeps.
        patience = 0 if self._has_just_left(now) else self._budget
        wire.pace(patience, max(self._next_turn - now, 0))

    def _ask(self, poll: select.poll, now: int) -> Any:
        """Ask whether there is a request, for as long as it pays; what was seen."""
        end = now if self.reads_ahead else now + self._budget
        while not (events := poll.poll(0)):
            now = time.perf_counter_ns()
            # What a thread has found out can be answered only once this loop sleeps.
            if now >= end or self._has_just_left(now):
                break
        return events

    def _has_just_left(self, now: int) -> bool:
        """Whether a request waits for something that others were quick to give."""
        return self._away > 0 and now < self._away_since + _AWAY_NS

    async def soon(self, is_there: Callable[[], bool]) -> bool:
        """Whether *is_there* comes true within a moment: the loop asks it again and again.

        For what the host was asked for already and nothing tells of.
        """
        if self._ends or self._away >= _MOST_EXPECTED:  # somebody has to read requests and look
            return False
        expected = _Expected(is_there)
        self._expected.append(expected)

        def give_up(_: object) -> trio.lowlevel.Abort:
            self._expected.remove(expected)
            return trio.lowlevel.Abort.SUCCEEDED

        with self.away():
            came: bool = await trio.lowlevel.wait_task_rescheduled(give_up)
        return came

    def _look(self) -> int:
        """Let go on what is there by now, or took too long; how many that were."""
        now = time.perf_counter_ns()
        before = len(self._expected)
        for expected in tuple(self._expected):
            came = expected.is_there()
            if came or now > expected.until:
                self._expected.remove(expected)
                trio.lowlevel.reschedule(expected.task, outcome.Value(came))
        return before - len(self._expected)

    async def _let_go_on(self, ready: int) -> None:
        """Let tasks run that something was found out for, *ready* at least."""
        if self._workers is not None and self._workers.collect():
            ready += 1
        away = self._away
        if ready:
            await trio.lowlevel.checkpoint()
            if self._away == away:  # trio goes by no order: it was our turn before theirs
                await trio.lowlevel.checkpoint()

    async def _listen(self, descriptor: int, now: int) -> bool:
        """Sleep until there is a request or an answer, for a moment; whether there is."""
        workers = self._workers
        if workers is None or not self._has_just_left(now):
            return False
        if self._bell is None or self._either is None:
            self._bell, self._either = Bell(), select.poll()
            self._either.register(descriptor, select.POLLIN)
            self._either.register(self._bell.descriptor, select.POLLIN)
        workers.ring = self._bell.ring
        try:
            found = workers.has_answers or self._either.poll(_LISTEN_MS)
        finally:
            workers.ring = None
        if found:  # even if it rang for what was collected before
            self._bell.silence()
        if workers.has_answers:
            await self._let_go_on(0)
        return bool(found)

    def _learn(self, since: int) -> None:
        """Poll next time as long as it takes, if requests came that close; else ever less."""
        now = time.perf_counter_ns()
        self._budget = self._patience if now - since <= self._patience else self._budget >> 2
        self._begin_turn(now)

    def _begin_turn(self, now: int) -> None:
        """The daemon's other tasks have just had theirs."""
        self._next_turn = now + (_AWAY_TURN_NS if self._away else _TURN_NS)

    def notify_closing(self, descriptor: int) -> None:
        """End all waiting on *descriptor*."""
        self._end()
        self._waiting.unpark_all()
        trio.lowlevel.notify_closing(descriptor)

    def _end(self) -> None:
        """Nobody reads requests any more, nor looks for what is expected."""
        self._ends = True
        for expected in self._expected:
            trio.lowlevel.reschedule(expected.task, outcome.Value(False))
        self._expected.clear()


class _Lowlevel:
    """`trio.lowlevel`, but for waiting."""

    def __init__(self, loop: RequestLoop) -> None:
        self.wait_readable = loop.wait_readable
        self.notify_closing = loop.notify_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)


class _TrioForPyfuse3:
    """`trio`, but for what `RequestLoop` does itself."""

    def __init__(self, loop: RequestLoop) -> None:
        self._loop = loop
        self.lowlevel = _Lowlevel(loop)

    def Lock(self) -> RequestLoop:  # noqa: N802 - pyfuse3 calls it by this name
        return self._loop

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)

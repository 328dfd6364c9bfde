"""Threads in which requests wait for a device, and how the event loop learns what they found out.

trio's own threads would do, but for what it costs to hear from them: a round through its loop, of
which a request that waits for a fast disk spends as much time as on the disk. The request loop
sleeps, for a moment, on a bell beside the descriptor of the session; only where it does not is it
woken by trio. Threads are rationed by device, so that a stuck one starves nobody else.
"""

import errno
import os
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import outcome
import trio

T = TypeVar("T")

_THREADS_PER_DEVICE = 16
_IDLE_SECONDS = 10.0
"""For so long a thread is kept for the next request."""


class _Job:
    """One question that has to wait, and the task that waits for the answer."""

    __slots__ = ("answer", "device", "result", "task", "token")

    def __init__(self, device: int, answer: Callable[[], Any]) -> None:
        self.device = device
        self.answer: Callable[[], Any] | None = answer
        self.result: outcome.Outcome[Any] | None = None
        self.task: trio.lowlevel.Task | None = trio.lowlevel.current_task()
        """None once nobody waits any more."""
        self.token = trio.lowlevel.current_trio_token()


_Mailbox = SimpleQueue[_Job]


class Workers:
    """The threads of one mount. All but `_work` and `_report` is for the event loop."""

    def __init__(self) -> None:
        self.ring: Callable[[], None] | None = None
        """Called in a thread that has an answer, while the request loop listens for it."""
        self._done: deque[_Job] = deque()
        self._idle: list[_Mailbox] = []
        self._running: Counter[int] = Counter()
        self._waiting: dict[int, deque[_Job]] = {}

    async def run(self, device: int, answer: Callable[[], T]) -> T:
        """What *answer* gives in a thread, which may wait for *device*.

        Where the task is cancelled meanwhile, the thread goes on and is not heard any more.
        """
        job = _Job(device, answer)
        if self._running[device] < _THREADS_PER_DEVICE:
            self._start(job)
        else:
            self._waiting.setdefault(device, deque()).append(job)

        def abandon(_: object) -> trio.lowlevel.Abort:
            job.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        found: T = await trio.lowlevel.wait_task_rescheduled(abandon)
        return found

    @property
    def has_answers(self) -> bool:
        """Whether there is anything for `collect`."""
        return bool(self._done)

    def collect(self) -> bool:
        """Let go on whom threads have answered; whether there was anybody."""
        if not self._done:
            return False
        while self._done:
            job = self._done.popleft()
            self._end(job.device)
            if job.task is not None:
                trio.lowlevel.reschedule(job.task, job.result)  # type: ignore[arg-type]
        return True

    def _start(self, job: _Job) -> None:
        self._running[job.device] += 1
        try:
            mailbox = self._idle.pop()
        except IndexError:
            mailbox = SimpleQueue()
            thread = Thread(target=self._work, args=(mailbox,), name="overlayd worker", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # there can be no more
                job.result = outcome.Error(OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)))
                self._report(job)
                return
        mailbox.put(job)

    def _end(self, device: int) -> None:
        """One of the threads for *device* is free: for whoever waits for it next."""
        self._running[device] -= 1
        waiting = self._waiting.get(device, ())
        while waiting:
            job = self._waiting[device].popleft()
            if job.task is not None:
                self._start(job)
                return
        self._waiting.pop(device, None)
        if not self._running[device]:
            del self._running[device]

    # -- in the threads -------------------------------------------------------------------------

    def _work(self, mailbox: _Mailbox) -> None:
        while True:
            try:
                job = mailbox.get(timeout=_IDLE_SECONDS)
            except Empty:
                try:
                    self._idle.remove(mailbox)
                except ValueError:  # somebody has just taken it, to put something in
                    continue
                return
            assert job.answer is not None
            job.result = outcome.capture(job.answer)
            job.answer = None
            self._idle.append(mailbox)
            self._report(job)
            del job  # what it holds is open for as long

    def _report(self, job: _Job) -> None:
        token = job.token
        self._done.append(job)
        del job
        ring = self.ring  # taken after it was added: whoever takes the bell away looks once more
        if ring is not None:
            ring()
            return
        with suppress(trio.RunFinishedError):
            token.run_sync_soon(self.collect, idempotent=True)

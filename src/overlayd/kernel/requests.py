"""How a request is answered: at once on the event loop, or in a thread where it has to wait.

A handler is a plain function. It is called on the event loop and nothing is awaited; where the core
says that it would have to wait for a device or server, it is called again in a worker thread that
may wait. `answering` is the only place where errors are converted: pyfuse3 ends the whole mount for
any exception that is not a FUSEError.
"""

import errno
import functools
import logging
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ParamSpec, TypeVar

from overlayd.kernel import wire

# isort: split
# What comes from the room above has to be loaded before this.
import pyfuse3
import trio
from pyfuse3 import FUSEError

from overlayd.core.overlay import Overlay
from overlayd.core.types import ErrorStyle, WouldBlock
from overlayd.kernel.counters import Counters, subject_of
from overlayd.kernel.workers import Workers

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_MOST_LATE = 8
"""A device that does not bring anything at once is tried with every 256th request."""
NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT))
ASKED_ONCE = frozenset(("flush", "fsync", "fsyncdir", "release", "releasedir"))
"""The host tells of a failed writeback once: asked again, it would say that all is well."""
_FORGET_TURNS = 20
_FORGET_PAUSE = 0.005  # seconds
_MOVES_PAUSE = 0.001

# wasmtime turns EROFS into EIO before its guest sees it; EPERM passes through (SPEC.md section 6).
_STYLES: dict[str, dict[int, int]] = {"posix": {}, "wasi": {errno.EROFS: errno.EPERM}}

Then = Callable[["Requests", Any, Any], None]
"""Called on the event loop after an answer, with that and the handler's first argument."""


def answering(handler: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make the plain function *handler* one of pyfuse3's: what it raises becomes a FUSEError.

    An OSError becomes its errno, anything else EIO. Requests and errors are counted here too.
    """
    return _answered(handler, None)


def answering_then(
    then: Then,
) -> Callable[[Callable[P, T]], Callable[P, Coroutine[Any, Any, T]]]:
    """The same, with *then* to be called after each answer."""
    return lambda handler: _answered(handler, then)


def _answered(handler: Callable[P, T], then: Then | None) -> Callable[P, Coroutine[Any, Any, T]]:
    operation = handler.__name__
    subject = subject_of(operation)
    may_repeat = operation not in ASKED_ONCE

    @functools.wraps(handler)
    async def wrapper(*args: Any) -> T:
        requests: Requests = args[0]
        try:
            requests.counters.request(operation, subject, args[1])
            freed = requests.descriptors.freed
            device = None
            # No exception is kept while anything is waited for: its frames hold descriptors, which
            # would then be closed here, and closing one of a slow source takes its time.
            try:
                answer = handler(*args)  # type: ignore[call-arg]
            except WouldBlock as wait:
                device, is_there = wait.device, wait.is_there
            except OSError as error:
                if not may_repeat or not await requests.room_comes(error, freed):
                    raise
                answer = await requests.ask(partial(handler, *args))
            if device is not None:
                again = partial(handler, *args)
                if is_there is not None and await requests.comes(device, is_there):
                    answer = await requests.ask(again)
                else:
                    answer = await requests.ask_in_thread(device, again, freed, may_repeat)
            if then is not None:
                then(requests, answer, args[1])
            return answer
        except FUSEError:
            raise
        except Exception as error:
            number = requests.number_of(operation, error)
        raise FUSEError(number)

    wrapper.plain = handler, then  # type: ignore[attr-defined]
    return wrapper  # type: ignore[return-value]


async def _never(_: Callable[[], bool]) -> bool:
    return False


class Requests(pyfuse3.Operations):
    """What all handlers of one mount go through."""

    def __init__(self, overlay: Overlay, errors: ErrorStyle) -> None:
        super().__init__()
        self.counters = Counters(overlay.namespace)
        self.descriptors = overlay.namespace.cache
        self.error_style = errors
        self.away: Callable[[], AbstractContextManager[None]] = nullcontext
        """Entered around whatever a request waits for: others are to be read meanwhile."""
        self.soon: Callable[[Callable[[], bool]], Coroutine[Any, Any, bool]] = _never
        """Whether something comes true within a moment."""
        self._overlay = overlay
        self._late: Counter[int] = Counter()
        """How often in turn a device did not bring what was expected soon, and"""
        self._passed_over: Counter[int] = Counter()
        """how many requests nothing is expected for because of that."""
        self._under_way: set[trio.Event] = set()
        self.workers = Workers()

    async def drained(self, seconds: float) -> bool:
        """Whether all requests that are in threads now end within *seconds*.

        Those that are answered on the event loop have ended whenever anybody else runs.
        """
        begun = wire.moves_begun()
        with trio.move_on_after(seconds) as limit:
            for ended in list(self._under_way):
                await ended.wait()
            while not wire.have_ended(begun):
                await trio.sleep(_MOVES_PAUSE)
        return not limit.cancelled_caught

    def number_of(self, operation: str, error: Exception) -> int:
        """The errno that is answered where the handler of *operation* raised *error*."""
        if isinstance(error, OSError):
            if error.errno is None:
                log.exception("%s: an error without a number", operation)
            number = self.named(error.errno or errno.EIO)
        else:
            log.exception("%s: unexpected; answered EIO", operation)
            number = errno.EIO
        self.counters.errors[number] += 1
        return number

    def named(self, number: int) -> int:
        """What *number*, an errno of ours, is called in answers."""
        return _STYLES[self.error_style].get(number, number)

    async def comes(self, device: int, is_there: Callable[[], bool]) -> bool:
        """Whether *device* brings something within a moment, if it is one that does so."""
        if self._passed_over[device]:
            self._passed_over[device] -= 1
            return False
        if await self.soon(is_there):
            self._late.pop(device, None)
            return True
        self._late[device] = late = min(self._late[device] + 1, _MOST_LATE)
        self._passed_over[device] = 1 << late
        return False

    async def ask(self, answer: Callable[[], T]) -> T:
        """What *answer* gives here if it need not wait, else in a thread that may."""
        try:
            return answer()
        except WouldBlock as wait:
            device = wait.device
        return await self._in_thread(device, answer)

    async def ask_in_thread(
        self, device: int, answer: Callable[[], T], freed: int, may_repeat: bool
    ) -> T:
        """What *answer* gives in a thread; asked once more where room on the host was to come."""
        try:
            return await self._in_thread(device, answer)
        except OSError as error:
            if not may_repeat or not await self.room_comes(error, freed):
                raise
        return await self._in_thread(device, answer)

    async def room_comes(self, error: OSError, freed: int) -> bool:
        """Whether *error* says that the host is full, and it is not any more, or shortly is not.

        The kernel says only some requests later that it has done with a file that was removed, and
        until then the host keeps the file. Waited for in turns of the event loop, each of which
        reads what the kernel has queued; what stays for so long is kept by a guest. *freed* was
        counted before the host was asked.
        """
        if error.errno not in NO_ROOM:
            return False
        expected = self.descriptors.lingering()
        with self.away():
            for _ in range(_FORGET_TURNS):
                if not expected & self.descriptors.lingering():
                    break
                await trio.sleep(_FORGET_PAUSE)
            else:
                self.descriptors.stop_expecting(expected)
        return self.descriptors.freed != freed

    async def _in_thread(self, device: int, answer: Callable[[], T]) -> T:
        ended = trio.Event()
        self._under_way.add(ended)
        try:
            with self.away():
                return await self.workers.run(device, partial(self._patiently, answer))
        finally:
            self._under_way.discard(ended)
            ended.set()

    def _patiently(self, answer: Callable[[], T]) -> T:
        with self._overlay.namespace.patience():
            return answer()

"""Requests that are answered as they are read, past libfuse, pyfuse3 and trio.

These make several objects and a task's turn of each request, which costs more than most answers.
What is asked for most is answered by the very same handlers in plain tuples, which the extension
packs. A handler that would have to wait, and one that found no room on the host, is left to
pyfuse3, which calls it again; so is everything where there is no extension.

What is read from files, and brought to the disk, the extension moves itself: the handler only says
from where (`_moves.h`).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from pyfuse3 import FUSEError

from overlayd.core.data import Origin
from overlayd.core.listings import Entry
from overlayd.core.types import Attrs, Changes, WouldBlock
from overlayd.host.credentials import Caller
from overlayd.host.fs import Fd
from overlayd.kernel import wire
from overlayd.kernel.counters import subject_of
from overlayd.kernel.operations import Operations
from overlayd.kernel.requests import ASKED_ONCE, NO_ROOM
from overlayd.kernel.wire import Validity

_OPERATIONS = {
    1: "lookup",
    2: "forget",
    3: "getattr",
    4: "setattr",
    9: "mkdir",
    10: "unlink",
    11: "rmdir",
    12: "rename",
    14: "open",
    15: "read",
    16: "write",
    18: "release",
    20: "fsync",
    22: "getxattr",
    27: "opendir",
    29: "releasedir",
    30: "fsyncdir",
    35: "create",
    42: "forget",
    44: "readdir",
    45: "rename",
}
"""By opcode (linux/fuse.h)."""

_NOTHING = (0.0, 0.0, 0, None, 0)

_READ = 15
_CACHED, _IN_MEMORY, _SLOW = range(3)  # HOW_… in _moves.h
_Source = tuple[int, Fd, int, int]
"""What to move from: a descriptor, what keeps it open, its device, and how it may be read."""


class _Opened(NamedTuple):
    fh: int
    flags: int


class _Listing:
    """A reply to readdir in the making."""

    __slots__ = ("listing", "room")

    def __init__(self, room: int) -> None:
        self.listing = bytearray()
        self.room = room


class _Direct(Operations):
    """The handlers of a mount, which say in tuples what they otherwise say in pyfuse3's objects."""

    def __init__(self, operations: Operations) -> None:
        self.__dict__ = operations.__dict__  # it is the same mount

    def _entry(self, attrs: Attrs, near: float) -> Any:
        near, seconds = self.coherence.validity(attrs, near)
        return near, seconds, attrs.number, attrs.stat, attrs.size

    def _absent(self, near: float) -> Any:
        return (near, *_NOTHING[1:])

    def _opened(self, handle: int, *, keeps: bool) -> Any:
        return _Opened(handle, wire.KEEP_CACHE if keeps else 0)

    @staticmethod
    def _changes(attr: Any, fields: Any) -> Changes:  # noqa: ARG004 - they are in `attr`
        return Changes(*attr)

    @staticmethod
    def _tell(token: Any, entries: list[Entry], validities: list[Validity]) -> int:
        return wire.add_entries(token.listing, token.room, entries, validities)

    @staticmethod
    def _caller(caller: Any) -> Caller:
        return caller  # type: ignore[no-any-return]  # as `answer_with` has it made

    def note_moved(self, moved: wire.Moved) -> None:
        """Count what the extension has answered."""
        for opcode, handle, times, result in moved:
            if times:
                self.counters.request("read", "handle", handle, times)
            if result < 0:
                self.counters.errors[-result] += 1
            elif opcode == _READ:
                self.counters.read(handle, result)

    # -- what the extension moves ---------------------------------------------------------------

    def read_from(self, fh: int, _offset: int, _size: int) -> _Source:
        return _source(self._data.origin(fh))

    def sync_to(self, fh: int, _data_only: bool) -> _Source | None:
        if self._data.may_block(fh):
            self._consent_to_wait(fh)
        origin = self._data.origin_to_sync(fh)
        return None if origin is None else _source(origin)


def _source(origin: Origin) -> _Source:
    how = _SLOW if origin.is_slow else _IN_MEMORY if origin.is_in_memory else _CACHED
    return origin.fd.number, origin.fd, origin.device, how


_MOVES: dict[str, Callable[..., object]] = {
    "read": _Direct.read_from,
    "fsync": _Direct.sync_to,
    "fsyncdir": _Direct.sync_to,
}


def answer_directly(operations: Operations, *, polls: bool) -> bool:
    """Have the requests of a mount answered as they are read; False where that cannot be.

    With *polls*, what a fast disk is about to bring is looked for again and again.
    """
    direct = _Direct(operations)
    handlers = {
        opcode: direct.forget_now if name == "forget" else _answering(direct, name)
        for opcode, name in _OPERATIONS.items()
    }
    return wire.answer_with(handlers, Caller, direct.note_moved, polls=polls)


def _list(
    handler: Callable[..., None], direct: Operations, fh: int, start: int, room: int
) -> bytearray:
    """What *handler* lists, in a reply of *room* bytes."""
    reply = _Listing(room)
    handler(direct, fh, start, reply)
    return reply.listing


def _answering(direct: Operations, operation: str) -> Callable[..., object]:
    """The handler of *operation*, which answers with a negative errno where it fails."""
    handler, then = getattr(Operations, operation).plain
    if operation in _MOVES:
        handler, then = _MOVES[operation], None
    if operation == "readdir":
        handler = partial(_list, handler)
    subject = subject_of(operation)
    count = direct.counters.request
    may_repeat = operation not in ASKED_ONCE

    def answer(number: int, *rest: Any) -> object:
        try:
            told = handler(direct, number, *rest)
        except WouldBlock:
            return NotImplemented
        except OSError as error:
            if may_repeat and error.errno in NO_ROOM:
                return NotImplemented
            count(operation, subject, number)
            return -direct.number_of(operation, error)
        except FUSEError as error:
            count(operation, subject, number)
            return -error.errno
        except Exception as error:
            count(operation, subject, number)
            return -direct.number_of(operation, error)
        count(operation, subject, number)
        if then is not None:
            then(direct, told, number)
        return told

    return answer

"""What the kernel is told without having asked: that it must forget.

pyfuse3 can say some of it. Written by hand here is what it cannot: that a name has only expired,
which leaves alone whoever works in a directory of that name, and what is mounted below it.
"""

import struct
from collections.abc import Callable, Iterable

import trio

from overlayd.host import device

_HEADER = struct.Struct("=IiQ")
_INODE = struct.Struct("=Qqq")
_ENTRY = struct.Struct("=QII")
_INVALIDATE_INODE, _INVALIDATE_ENTRY = 2, 3
_EXPIRE_ONLY = 1
_THREADS = 4


def _message(code: int, payload: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(payload), code, 0) + payload


def expired(parent: int, name: bytes) -> bytes:
    """*name* in *parent* is to be asked for again; before Linux 6.2 the same as `dropped`."""
    return _message(_INVALIDATE_ENTRY, _ENTRY.pack(parent, len(name), _EXPIRE_ONLY) + name + b"\0")


def dropped(parent: int, name: bytes) -> bytes:
    """*name* in *parent*, and all that is cached below it, is to be forgotten."""
    return _message(_INVALIDATE_ENTRY, _ENTRY.pack(parent, len(name), 0) + name + b"\0")


def changed(number: int, *, data: bool) -> bytes:
    """The attributes of inode *number* are out of date; with *data*, its content or listing too."""
    return _message(_INVALIDATE_INODE, _INODE.pack(number, 0 if data else -1, 0))


class Notifier:
    """Tells the kernel, in a thread, since it may make who tells it wait.

    It waits for requests on the same directory, which are answered meanwhile.
    """

    def __init__(
        self, session: int | None, send: Callable[[int, bytes], None] = device.send
    ) -> None:
        """*session* is the descriptor of the mount, None where there is none to be told."""
        self._session = -1 if session is None else session
        self._send = send
        self._limiter = trio.CapacityLimiter(_THREADS)
        self._under_way: set[trio.Event] = set()
        self._ends = False

    async def tell(self, messages: Iterable[bytes]) -> None:
        """Return when the kernel has been told all of *messages*."""
        ended = trio.Event()
        self._under_way.add(ended)
        try:
            await trio.to_thread.run_sync(
                self.tell_here, messages, abandon_on_cancel=True, limiter=self._limiter
            )
        finally:
            self._under_way.discard(ended)
            ended.set()

    def tell_here(self, messages: Iterable[bytes]) -> None:
        """The same in this thread, which may have to wait."""
        for message in messages:
            if self._ends:
                return
            try:
                self._send(self._session, message)
            except OSError:  # it knows nothing of it, as most often
                continue

    async def stop(self) -> None:
        """Return once nothing is being told any more.

        To be called while requests are still answered: the kernel holds a notification up until
        the requests on that directory are.
        """
        self._ends = True
        for ended in list(self._under_way):
            await ended.wait()

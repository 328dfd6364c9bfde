"""What the host changes in directories and files, as inotify(7) tells it, and fanotify(7) for some.

To be imported only where something is watched: a daemon that does not pays nothing for it.
"""

import os
import select
import struct
from collections.abc import Hashable
from contextlib import suppress
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING

from overlayd.host.fs import Fd
from overlayd.host.imports import load

if TYPE_CHECKING:
    from overlayd.host.muting import Muting

# Only waiting is done with asyncio there, and we wait in trio.
load("asyncinotify", instead={"asyncio": {"Future": object, "get_running_loop": None}})
from asyncinotify import Inotify, Mask, Watch  # noqa: E402

IGNORED = int(Mask.IGNORED)
_MODIFY = int(Mask.MODIFY)
OVERFLOW = -1
"""Stands for a watch in what `take` gives: the queue was full, and something was lost."""

_CONTENT = Mask.MODIFY | Mask.ATTRIB | Mask.CLOSE_WRITE | Mask.DELETE_SELF | Mask.MOVE_SELF
_NAMES = Mask.CREATE | Mask.DELETE | Mask.MOVED_FROM | Mask.MOVED_TO
_DIRECTORY = _NAMES | _CONTENT | Mask.ONLYDIR
_NOWHERE = Path()
_EVENT = struct.Struct("=iIII")
_BUFFER = 1 << 16  # bytes
_READS = 32
"""At most so many at once, or a host that changes things all the time would keep us reading."""

Events = dict[tuple[int, bytes], int]
"""Masks by watch and name in it, none for the watched object itself."""


class _Magic(PosixPath):
    """The path of what a descriptor names, which the library takes, and wants no more of than its
    bytes. Made of text, it would be taken apart first, and that costs more than the watch."""

    number: int

    def __bytes__(self) -> bytes:
        return b"/proc/self/fd/%d" % self.number

    def __str__(self) -> str:
        return f"/proc/self/fd/{self.number}"


class HostWatch:
    """One queue of events, and the watches that fill it."""

    def __init__(self) -> None:
        """Raise OSError where the user has no instance left (EMFILE)."""
        self._inotify = Inotify()
        os.set_blocking(self._inotify.fd, False)
        # The library takes a watch out of its table only where it reads the events itself.
        self._watches: dict[int, Watch] = self._inotify._watches
        self._queues = select.epoll()
        self._queues.register(self._inotify.fd, select.EPOLLIN)
        self._muting: Muting | None = None

    def __len__(self) -> int:
        return len(self._watches)

    @property
    def descriptor(self) -> int:
        """Readable whenever there is something to `take`."""
        return self._queues.fileno()

    def add(self, fd: Fd, *, directory: bool) -> int:
        """Watch what *fd* names; the number of the watch, the same each time.

        Raises OSError where that cannot be: ENOSPC at the limit of watches, EACCES without the
        right to read.
        """
        return self._add(fd, _DIRECTORY if directory else _CONTENT)

    def _add(self, fd: Fd, mask: Mask) -> int:
        path = object.__new__(_Magic)
        path.number = fd.number
        watch = self._inotify.add_watch(path, mask)
        watch.path = _NOWHERE  # one for all: there are many, and the path means nothing later
        return watch.wd

    def remove(self, number: int) -> None:
        """Watch no more; what is still queued of it is told all the same."""
        if self._muting is not None:
            self._muting.forget(number)
        watch = self._watches.pop(number, None)
        if watch is not None:
            with suppress(OSError):  # it ended with the object
                self._inotify.rm_watch(watch)

    def ignore(self, number: int, directory: Fd | None, file: Hashable, fd: Fd) -> None:
        """Tell no more of modifications of *file*, which *fd* names, until `heed`, if that can be.

        Watch *number* told of one: that of *directory*, of the file itself where this is None.
        """
        if self._muting is None:
            from overlayd.host.muting import Muting

            self._muting = Muting(self._switch, self._queues)
        self._muting.ignore(number, directory, file, fd)

    def heed(self, file: Hashable, fd: Fd) -> None:
        """Tell of modifications of *file*, which *fd* names, again."""
        if self._muting is not None:
            self._muting.heed(file, fd)

    def heed_all(self) -> None:
        """Tell of those of all files; to be followed by `add` of all that is watched."""
        if self._muting is not None:
            self._muting.close()

    def _switch(self, number: int, fd: Fd, directory: bool, tells: bool) -> None:
        mask = _DIRECTORY if directory else _CONTENT
        before = len(self._watches)
        found = self._add(fd, mask if tells else mask & ~Mask.MODIFY)
        if found != number:  # that one has ended with what it was of
            self._add(fd, mask)
            if len(self._watches) > before:
                self.remove(found)

    def take(self) -> Events:
        """Everything that is queued, what concerns one name taken together."""
        events: Events = {}
        for _ in range(_READS):
            try:
                data = os.read(self._inotify.fd, _BUFFER)
            except BlockingIOError:
                break
            self._parse(data, events)
        for found in self._muting.take() if self._muting is not None else ():
            key = found or (OVERFLOW, b"")
            events[key] = events.get(key, 0) | _MODIFY
        return events

    def _parse(self, data: bytes, events: Events) -> None:
        # By hand: the library makes several objects of each event, which a guest that writes many
        # files would pay for.
        at = 0
        while at < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            key = (number, data[at : at + length].rstrip(b"\0"))
            at += length
            events[key] = events.get(key, 0) | mask
            if mask & IGNORED:
                self._watches.pop(number, None)
                if self._muting is not None:
                    self._muting.forget(number)

    def close(self) -> None:
        """End all watches."""
        self.heed_all()
        self._queues.close()
        self._inotify.close()

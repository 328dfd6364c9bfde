"""What the host changes in directories and files, as inotify(7) tells it.

To be imported only where something is watched: a daemon that does not pays nothing for it.
"""

import os
import struct
from contextlib import suppress
from pathlib import Path, PosixPath

from overlayd.host.fs import Fd
from overlayd.host.imports import load

# Only waiting is done with asyncio there, and we wait in trio.
load("asyncinotify", instead={"asyncio": {"Future": object, "get_running_loop": None}})
from asyncinotify import Inotify, Mask, Watch  # noqa: E402

IGNORED = int(Mask.IGNORED)
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
        os.set_blocking(self.descriptor, False)
        # The library takes a watch out of its table only where it reads the events itself.
        self._watches: dict[int, Watch] = self._inotify._watches

    def __len__(self) -> int:
        return len(self._watches)

    @property
    def descriptor(self) -> int:
        """Readable whenever there is something to `take`."""
        return self._inotify.fd

    def add(self, fd: Fd, *, directory: bool) -> int:
        """Watch what *fd* names; the number of the watch, the same each time.

        Raises OSError where that cannot be: ENOSPC at the limit of watches, EACCES without the
        right to read.
        """
        mask = _DIRECTORY if directory else _CONTENT
        path = object.__new__(_Magic)
        path.number = fd.number
        watch = self._inotify.add_watch(path, mask)
        watch.path = _NOWHERE  # one for all: there are many, and the path means nothing later
        return watch.wd

    def remove(self, number: int) -> None:
        """Watch no more; what is still queued of it is told all the same."""
        watch = self._watches.pop(number, None)
        if watch is not None:
            with suppress(OSError):  # it ended with the object
                self._inotify.rm_watch(watch)

    def take(self) -> Events:
        """Everything that is queued, what concerns one name taken together."""
        events: Events = {}
        for _ in range(_READS):
            try:
                data = os.read(self.descriptor, _BUFFER)
            except BlockingIOError:
                break
            self._parse(data, events)
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

    def close(self) -> None:
        """End all watches."""
        self._inotify.close()

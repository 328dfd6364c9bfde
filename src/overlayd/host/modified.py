"""Modifications of files in some directories, but for single files, as fanotify(7) tells them.

For each write inotify tells of the file or, by another mask, of none in its directory. A file that
guests write past us is written all the time, as we know; what the kernel does to say so costs each
write a fifth of what it takes. fanotify leaves single files out (FAN_MARK_IGNORE, Linux 6.0). It
takes CAP_SYS_ADMIN, as it does to have a file written past us.

To be imported where the first file is left out, which most mounts never come to.
"""

import os
import struct
from collections.abc import Iterator
from contextlib import suppress

from overlayd.host import libc
from overlayd.host.fs import Fd

_GROUP = libc.FAN_CLOEXEC | libc.FAN_NONBLOCK | libc.FAN_REPORT_DFID_NAME
_IN_DIRECTORY = libc.FAN_MODIFY | libc.FAN_EVENT_ON_CHILD
_BUT_FOR = libc.FAN_MARK_IGNORE | libc.FAN_MARK_IGNORED_SURV_MODIFY
_EVENT = struct.Struct("=IBBHQii")  # length, version, -, length of this, mask, fd, pid
_RECORD = struct.Struct("=BBH8sI")  # type, -, length, file system, length of the handle
_HANDLE_TYPE = 4  # bytes, which are not counted in that length
_BUFFER = 1 << 16  # bytes
_READS = 32


class Modified:
    """One queue of them, and the marks that fill it."""

    def __init__(self) -> None:
        """Raise OSError where there is none to be had.

        EPERM without the right to it, ENOSYS where the kernel was built without, EMFILE.
        """
        self.descriptor = libc.fanotify_init(_GROUP)
        """Readable whenever there is something to `take`."""
        self._directories: dict[int, tuple[Fd, bytes]] = {}
        self._numbers: dict[bytes, int] = {}
        self._former: set[bytes] = set()
        """Directories of which something may still be queued."""

    def add(self, number: int, directory: Fd) -> None:
        """Tell what is modified in *directory*, by *number*.

        Raises OSError where that cannot be: EOPNOTSUPP, EXDEV or ENODEV on file systems whose files
        cannot be told by a handle, ENOSPC at the limit of marks.
        """
        if number in self._directories:
            return
        key = libc.file_system_id(directory.number) + libc.name_to_fid(directory.number)
        self._mark(libc.FAN_MARK_ADD | libc.FAN_MARK_ONLYDIR, _IN_DIRECTORY, directory)
        self._directories[number] = directory, key
        self._numbers[key] = number
        self._former.discard(key)

    def remove(self, number: int) -> None:
        """Tell no more of a directory; what is queued of it is told all the same."""
        found = self._directories.pop(number, None)
        if found is None:
            return
        directory, key = found
        if self._numbers.get(key) != number:  # it is told by another one by now
            return
        self._former.add(key)
        with suppress(OSError):  # its mark went with it
            self._mark(libc.FAN_MARK_REMOVE, _IN_DIRECTORY, directory)

    def ignore(self, file: Fd) -> None:
        """Tell nothing of *file*, wherever it is, until `heed`. Raises OSError like `add`.

        It ends by itself when nobody has the file open and the kernel wants the memory.
        """
        flags = libc.FAN_MARK_ADD | libc.FAN_MARK_EVICTABLE | _BUT_FOR
        self._mark(flags, libc.FAN_MODIFY, file)

    def heed(self, file: Fd) -> None:
        """Tell of *file* again."""
        with suppress(OSError):  # its mark went with it
            self._mark(libc.FAN_MARK_REMOVE | _BUT_FOR, libc.FAN_MODIFY, file)

    def take(self) -> Iterator[tuple[int, bytes] | None]:
        """Directory and name of everything that is queued; None where something was lost."""
        for _ in range(_READS):
            try:
                data = os.read(self.descriptor, _BUFFER)
            except BlockingIOError:
                break
            yield from self._parse(data)
        else:
            return
        for key in self._former:
            del self._numbers[key]
        self._former.clear()

    def close(self) -> None:
        """End it, and all marks with it."""
        os.close(self.descriptor)
        self._directories.clear()

    def _mark(self, flags: int, mask: int, fd: Fd) -> None:
        libc.fanotify_mark(self.descriptor, flags, mask, b"/proc/self/fd/%d" % fd.number)

    def _parse(self, data: bytes) -> Iterator[tuple[int, bytes] | None]:
        at = 0
        while at < len(data):
            length, _, _, head, mask, _, _ = _EVENT.unpack_from(data, at)
            if mask & libc.FAN_Q_OVERFLOW:
                yield None
            elif length > head:
                yield from self._told(data[at + head : at + length])
            at += length

    def _told(self, record: bytes) -> Iterator[tuple[int, bytes]]:
        kind, _, length, _, size = _RECORD.unpack_from(record)
        if kind != libc.FAN_EVENT_INFO_TYPE_DFID_NAME:
            return
        named = _RECORD.size + _HANDLE_TYPE + size
        number = self._numbers.get(record[4:named])
        if number is not None:
            yield number, record[named:length].rstrip(b"\0")

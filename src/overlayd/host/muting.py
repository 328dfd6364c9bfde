"""Files whose modifications are ignored for as long as guests write them past us.

inotify tells of the modifications of all files in a directory or of none. So the watch of a
directory is muted, fanotify tells of them instead, and leaves out single files. Where it is not to
be had, inotify goes on telling of all. The watch of a file itself need only be muted.

A directory stays muted for a while when nothing of it is ignored any more: muting it takes several
times as long as leaving out one more file.

To be imported where the first file is ignored, which most mounts never come to.
"""

import select
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator

from overlayd.host.fs import Fd
from overlayd.host.modified import Modified

_MOST_SPARE = 16
"""Directories that stay muted for no file; each keeps a descriptor."""

Switch = Callable[[int, Fd, bool, bool], None]
"""Has watch NUMBER, of what FD names, a directory or not, tell of modifications or not."""


class _Muted:
    """A watch that tells of no modifications for the time being."""

    __slots__ = ("directory", "files")

    def __init__(self, directory: Fd | None) -> None:
        self.directory = directory
        """What it is of; None for the watch of a file itself."""
        self.files: set[Hashable] = set()
        """Because of which."""


class Muting:
    """The muted watches of one mount, and what tells of modifications in their directories."""

    def __init__(self, switch: Switch, queues: select.epoll) -> None:
        """*queues* is to be readable when there is something to `take`."""
        self._switch = switch
        self._queues = queues
        self._muted: dict[int, _Muted] = {}
        self._spare: OrderedDict[int, None] = OrderedDict()
        """Those for no file at the moment, least recently used first."""
        self._ignored: dict[Hashable, set[int]] = {}
        """The files, and the watches that are muted because of them."""
        self._modified: Modified | None = None
        self._is_refused = False
        """Whether there is no fanotify for us."""
        self._refused: set[int] = set()
        """The watches of directories on whose file systems there is none."""

    def ignore(self, number: int, directory: Fd | None, file: Hashable, fd: Fd) -> None:
        """Tell no more of modifications of *file*, which *fd* names, by watch *number*.

        That is the watch of *directory*, or of the file itself where this is None. All else is told
        as before; and so is this where it cannot be ignored.
        """
        if directory is not None and not self._leave_out(number, directory, fd):
            return
        muted = self._muted.get(number) or self._mute(number, directory, fd)
        if muted is not None:
            muted.files.add(file)
            self._spare.pop(number, None)
        self._ignored.setdefault(file, set()).add(number)

    def _mute(self, number: int, directory: Fd | None, fd: Fd) -> _Muted | None:
        try:
            self._switch(number, directory or fd, directory is not None, False)
        except OSError:  # it has just ended, or we may not look there any more
            if directory is not None and self._modified is not None:
                self._modified.remove(number)
            return None
        muted = self._muted[number] = _Muted(directory)
        return muted

    def _leave_out(self, number: int, directory: Fd, fd: Fd) -> bool:
        """Have fanotify tell what is modified in *directory*, but for a file; whether it does."""
        modified = self._modified or self._open()
        if modified is None or number in self._refused:
            return False
        try:
            modified.add(number, directory)
            modified.ignore(fd)
        except OSError:
            self._refused.add(number)
            if number not in self._muted:
                modified.remove(number)
            return False
        return True

    def _open(self) -> Modified | None:
        if not self._is_refused:
            try:
                self._modified = Modified()
            except OSError:
                self._is_refused = True
            else:
                self._queues.register(self._modified.descriptor, select.EPOLLIN)
        return self._modified

    def heed(self, file: Hashable, fd: Fd) -> None:
        """Tell of modifications of *file*, which *fd* names, again.

        Watches tell of them first and fanotify ends then: twice is better than not at all.
        """
        numbers = self._ignored.pop(file, None)
        if numbers is None:
            return
        for number in numbers:
            muted = self._muted.get(number)
            if muted is not None:
                muted.files.discard(file)
                if not muted.files:
                    self._spare_one_more(number, muted, fd)
        if self._modified is not None:
            self._modified.heed(fd)

    def _spare_one_more(self, number: int, muted: _Muted, fd: Fd) -> None:
        if muted.directory is None:
            self._unmute(number, fd, is_directory=False)
            return
        self._spare[number] = None
        if len(self._spare) > _MOST_SPARE:
            oldest, _ = self._spare.popitem(last=False)
            directory = self._muted[oldest].directory
            assert directory is not None
            self._unmute(oldest, directory, is_directory=True)

    def _unmute(self, number: int, fd: Fd, *, is_directory: bool) -> None:
        try:
            self._switch(number, fd, is_directory, True)
        except OSError:  # we may not look there any more: fanotify goes on
            return
        self.forget(number)

    def forget(self, number: int) -> None:
        """Watch *number* has ended, or is not muted any more."""
        self._refused.discard(number)
        self._spare.pop(number, None)
        if self._muted.pop(number, None) is not None and self._modified is not None:
            self._modified.remove(number)

    def take(self) -> Iterator[tuple[int, bytes] | None]:
        """The watch and the name of all that was modified; None where something was lost."""
        if self._modified is not None:
            yield from self._modified.take()

    def close(self) -> None:
        """Ignore nothing any more; what is muted stays so."""
        if self._modified is not None:
            self._modified.close()
        self._modified = None
        self._muted.clear()
        self._spare.clear()
        self._ignored.clear()

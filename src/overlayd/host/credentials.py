"""Acting as the caller: file system uid, gid and groups, per thread (credentials(7), setfsuid(2)).

What a caller creates belongs to it and the host's own permission checks apply to it, because the
host is asked under the caller's ids: a non-zero file system uid takes the file capabilities away
from the thread for as long as it lasts (capabilities(7)). Everything here fails closed: where an
id cannot be taken on, the operation does not happen.
"""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import NamedTuple

from overlayd.host import libc

_QUERY = 0xFFFFFFFF  # setfsuid(2): an id that never is valid leaves things alone and reads them


_AS_WE_ARE = nullcontext()


class Caller(NamedTuple):
    """Who asked: ids as this process's user namespace shows them; pid 0 where it sees none."""

    uid: int
    gid: int
    pid: int


class Credentials:
    """This process's own ids, and the way into a caller's and back."""

    def __init__(self) -> None:
        self._uid = os.geteuid()
        self._gid = os.getegid()
        self._groups = tuple(os.getgroups())
        self.privileged = self._uid == 0 and libc.can_set_thread_groups()

    def acting_as(self, caller: Caller, *, groups: bool = True) -> AbstractContextManager[None]:
        """Run the block under *caller*'s file system ids, in this thread only.

        An unprivileged daemon serves its own user alone, or others under its own rights: then
        nothing is switched. Without *groups*, which take some time to find out, the supplementary
        ones stay ours. Raises OSError (EPERM) where the ids cannot be taken on.
        """
        if not self.privileged or (caller.uid == self._uid and caller.gid == self._gid):
            return _AS_WE_ARE
        # Root's groups decide nothing, and reading them costs more than most operations.
        return self._switched(caller, _groups_of(caller.pid) if groups and caller.uid else None)

    @contextmanager
    def _switched(self, caller: Caller, groups: tuple[int, ...] | None) -> Iterator[None]:
        if groups == self._groups:
            groups = None
        try:
            _take_on(caller.uid, caller.gid, groups)
            yield
        finally:
            _take_on(self._uid, self._gid, None if groups is None else self._groups)


def _take_on_by_ctypes(uid: int, gid: int, groups: tuple[int, ...] | None) -> None:
    """Give this thread file system ids, and groups unless None; all that can be given is.

    Raises OSError where any could not.
    """
    error = None
    if groups is not None:
        try:
            libc.set_thread_groups(groups)
        except OSError as refused:
            error = refused
    libc.setfsgid(gid)
    libc.setfsuid(uid)
    if (libc.setfsuid(_QUERY), libc.setfsgid(_QUERY)) != (uid, gid):
        error = error or OSError(errno.EPERM, os.strerror(errno.EPERM))
    if error is not None:
        raise error


_take_on: Callable[[int, int, tuple[int, ...] | None], None] = _take_on_by_ctypes
with suppress(ImportError):  # it could not be built
    from overlayd.host import _calls

    _take_on = _calls.take_on


def _groups_of(pid: int) -> tuple[int, ...]:
    """Supplementary groups of a thread, from proc(5); none where it cannot be seen."""
    try:
        number = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = b""
            while piece := os.read(number, 1 << 16):
                text += piece
        finally:
            os.close(number)
        _, _, rest = text.partition(b"\nGroups:")
        return tuple(map(int, rest[: rest.find(b"\n")].split()))
    except (OSError, ValueError):
        return ()

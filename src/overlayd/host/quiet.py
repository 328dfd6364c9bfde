"""Files by a mount of their own on which nobody's reading moves the access time.

The kernel reads a backing file with the flags of the guest's open, so that O_NOATIME is none of
ours to give. What can be given is the mount by which it reaches the file: a clone of the host's
that keeps no access times and is attached nowhere (open_tree(2), mount_setattr(2), Linux 5.12).
"""

import os
from collections.abc import Iterable

from overlayd.host import fs, libc
from overlayd.host.fs import Fd

_SPARING = os.ST_NOATIME | os.ST_RDONLY


class QuietMounts:
    """Clones of the mounts that sources are on, made when they are first asked for."""

    def __init__(self) -> None:
        self._clones: dict[int, Fd | None] = {}
        """By the id of the mount that was cloned; None where that has not been done yet.

        Any file of it will do: others are reached from it by their handles.
        """

    def hold(self, mount_ids: Iterable[int]) -> None:
        """*mount_ids* are those of the sources from now on: no other clone is kept.

        A clone keeps its file system busy, as a source does.
        """
        self._clones = {mount_id: self._clones.get(mount_id) for mount_id in mount_ids}

    def find(self, fd: Fd) -> Fd | None:
        """The file that *fd* names, by such a mount; None where the kernel does not allow that."""
        try:
            if os.fstatvfs(fd.number).f_flag & _SPARING:
                return fd
            mount_id, handle = libc.name_to_handle(fd.number)
            clone = self._clones.get(mount_id)
            if clone is None:
                made = _clone(fd)
                if mount_id in self._clones:
                    self._clones[mount_id] = fs.reopen(made, os.O_RDONLY)
                return made
            return Fd(libc.open_by_handle(clone.number, handle, os.O_PATH | os.O_CLOEXEC))
        except OSError:
            return _clone_at_all(fd)


def _clone(fd: Fd) -> Fd:
    made = Fd(libc.open_tree_clone(fd.number))
    libc.keep_no_atime(made.number)
    return made


def _clone_at_all(fd: Fd) -> Fd | None:
    """A clone for this one file: its file system knows no handles, or we may not use them."""
    try:
        return _clone(fd)
    except OSError:
        return None

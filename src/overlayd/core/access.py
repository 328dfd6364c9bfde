"""The table of rights: what each operation needs of the directories and of the inode it acts on.

Read-only is enforced here and nowhere else. Every operation pyfuse3 offers is listed once; a test
fails when one is missing. `permit` is called with the nodes an operation acts on, after EXDEV was
ruled out and before the host is asked for any change.
"""

import os
import stat
from collections.abc import Mapping
from enum import Flag, auto
from typing import NamedTuple

from overlayd.core.aliasing import Aliasing
from overlayd.core.denials import Denials
from overlayd.core.namespace import Namespace
from overlayd.core.nodes import Node, Place
from overlayd.errors import einval, erofs
from overlayd.host import fs
from overlayd.host.credentials import Caller
from overlayd.table.guest_path import show


class Needs(Flag):
    """What an operation changes, and so must be allowed to."""

    NOTHING = 0
    PARENT = auto()
    """The directory that holds the name (or the old name)."""
    NEW_PARENT = auto()
    """The directory that will hold the new name."""
    INODE = auto()
    """The object itself."""


RIGHTS: Mapping[str, Needs] = {
    # reading
    "lookup": Needs.NOTHING,
    "forget": Needs.NOTHING,
    "getattr": Needs.NOTHING,
    "readlink": Needs.NOTHING,
    "access": Needs.NOTHING,  # asks about rights: W_OK is put to `judge`
    "open": Needs.NOTHING,  # for reading; see "open for writing"
    "read": Needs.NOTHING,
    "flush": Needs.NOTHING,
    "release": Needs.NOTHING,
    "fsync": Needs.NOTHING,
    "opendir": Needs.NOTHING,
    "readdir": Needs.NOTHING,
    "releasedir": Needs.NOTHING,
    "fsyncdir": Needs.NOTHING,
    "statfs": Needs.NOTHING,
    "getxattr": Needs.NOTHING,
    "listxattr": Needs.NOTHING,
    "poll": Needs.NOTHING,
    # changing what a directory holds
    "mknod": Needs.PARENT,
    "mkdir": Needs.PARENT,
    "symlink": Needs.PARENT,
    "create": Needs.PARENT,
    "unlink": Needs.PARENT,  # of a read-only inode too: no read-only view changes (SPEC.md 4.4)
    "rmdir": Needs.PARENT | Needs.INODE,  # a read-only directory is neither moved nor removed
    "rename": Needs.PARENT | Needs.NEW_PARENT,  # of a file; see "rename of a directory"
    "rename of a directory": Needs.PARENT | Needs.NEW_PARENT | Needs.INODE,
    "link": Needs.NEW_PARENT | Needs.INODE,  # a new name raises the link count of the inode
    # changing the inode
    "open for writing": Needs.INODE,
    "write": Needs.INODE,  # decided when the handle was opened
    "setattr": Needs.INODE,
    "setxattr": Needs.INODE,
    "removexattr": Needs.INODE,
}

_CHANGED = {
    operation: (Needs.PARENT in needs, Needs.NEW_PARENT in needs, Needs.INODE in needs)
    for operation, needs in RIGHTS.items()
}  # beforehand: looking into a Flag costs more than most answers may


class Held(NamedTuple):
    """An object together with the descriptor by which it is judged, and then acted on."""

    node: Node
    fd: fs.Fd | None
    """None for a synthetic directory."""


class Denied(NamedTuple):
    """Why something may not be changed."""

    kind: str
    """One of a few words, for counters and for rationing the log."""
    reason: str


class Access:
    """Whether what an operation needs may be changed."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._aliasing = Aliasing(namespace)
        self.denials = Denials()

    def permit(
        self,
        operation: str,
        caller: Caller,
        *,
        parent: Held | None = None,
        new_parent: Held | None = None,
        inode: Held | None = None,
    ) -> None:
        """Raise EROFS unless everything *operation* needs may be changed.

        Raises WouldBlock where finding out takes a walk this thread may not wait for.
        """
        changes_parent, changes_new_parent, changes_inode = _CHANGED[operation]
        if changes_parent:
            self._require(operation, parent, caller)
        if changes_new_parent and new_parent != parent:
            self._require(operation, new_parent, caller)
        if changes_inode:
            self._require(operation, inode, caller)

    def _require(self, operation: str, held: Held | None, caller: Caller) -> None:
        assert held is not None, f"{operation} does not name all that it changes"
        denied = self.judge(held)
        if denied is not None:
            self._note(operation, held.node, denied, caller)
            raise erofs()

    def catch_up(self) -> None:
        """Let go of what another table had attached. May wait for the host; raises OSError."""
        self._aliasing.refresh()

    def judge(self, held: Held) -> Denied | None:
        """Why nothing of *held* may be changed; None where it may."""
        node, fd = held
        denied = self._judge_preopens(node)
        if denied is not None:
            return denied
        if fd is None:
            return Denied("synthetic directory", "it is synthetic: no source has it")
        if node.file_type == stat.S_IFDIR:
            reason = self._aliasing.directory(node, fd)
        else:
            reason = self._aliasing.file(node, fd, self._namespace.status(fd))
        return None if reason is None else Denied("shown read-only", reason)

    def judge_where_it_lies(self, fd: fs.Fd) -> str | None:
        """Why the file *fd* may not be changed, whatever it is known as; None where it may.

        May walk what is shown read-only: for a thread that may wait.
        """
        try:
            return self._aliasing.place(fd, self._namespace.status(fd))
        except OSError as error:
            return f"where it lies on the host cannot be told: {error.strerror}"

    def _judge_preopens(self, node: Node) -> Denied | None:
        """By the preopens of the names that are known; one that the host took away is let go."""
        if not self.is_behind_read_only(node):
            return None
        space = self._namespace
        newest = True
        for mount, place in zip(space.mounts_of(node), node.places or (None,), strict=False):
            if mount is not None and mount.read_only:
                if place is None or node.other_places is None or space.is_still_at(node, place):
                    return _because_of(newest, place, space)
                space.nodes.displace(node, *place)
            newest = False
        return None

    def is_behind_read_only(self, node: Node) -> bool:
        """Whether *node* is known through a read-only preopen; looks at no other name."""
        for mount in self._namespace.mounts_of(node):
            if mount is not None and mount.read_only:
                return True
        return False

    def _note(self, operation: str, node: Node, denied: Denied, caller: Caller) -> None:
        space = self._namespace
        mounts = space.mounts_of(node)
        mount = mounts[0] if mounts else None
        source = "no preopen" if mount is None else str(mount.preopen)
        guest = show(space.guest_path(node))
        self.denials.note(operation, guest, source, denied.kind, denied.reason, caller)


def _because_of(newest: bool, place: Place | None, namespace: Namespace) -> Denied:
    if newest or place is None:
        return Denied("read-only preopen", "its preopen is read-only")
    guest = show((*namespace.guest_path(place.parent), place.name))
    return Denied("shown read-only", f"it is shown read-only at {guest}")


_ACCESS_MODES = (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)
_KEPT = os.O_APPEND | os.O_TRUNC | os.O_NONBLOCK | os.O_NOATIME | os.O_LARGEFILE


def screen_flags(flags: int) -> int:
    """The part of a guest's open(2) flags that the host sees. Raises EINVAL for no access mode.

    An allow list: whatever a future kernel adds stays out. O_DIRECT is dropped, since the kernel
    already bypasses its own cache for it and the host call would want aligned memory; O_CREAT,
    O_EXCL and O_NOFOLLOW were acted on by the kernel or are added where a file is made. O_SYNC and
    O_DSYNC are dropped, since the kernel sends an fsync after each write to such a file.
    """
    if flags & os.O_ACCMODE not in _ACCESS_MODES:
        raise einval()
    return flags & (os.O_ACCMODE | _KEPT)


def wants_to_change(flags: int) -> bool:
    """Whether an open with *flags* may change the file: O_TRUNC does, even with O_RDONLY."""
    return flags & os.O_ACCMODE != os.O_RDONLY or bool(flags & os.O_TRUNC)

"""Operations on an object's attributes, extended attributes and link target."""

import errno
import os
import stat
import time
from contextlib import suppress

from overlayd.core.access import Access, Held
from overlayd.core.handles import Handle
from overlayd.core.namespace import Namespace
from overlayd.core.nodes import Node
from overlayd.core.symlinks import SymlinkRebaser
from overlayd.core.types import Attrs, Changes, WouldBlock
from overlayd.errors import ebadf, einval, erofs
from overlayd.host import fs
from overlayd.host.credentials import Caller

_TOUCH_WINDOW_NS = 5_000_000_000
_NOTHING = Changes()
_SET_ID_BITS = stat.S_ISUID | stat.S_ISGID


class Attributes:
    """Everything that takes a node and concerns the inode itself."""

    def __init__(self, namespace: Namespace, access: Access) -> None:
        self._namespace = namespace
        self._access = access
        self._links = SymlinkRebaser(namespace)

    def getattr(self, number: int) -> Attrs:
        """Present attributes. Raises ESTALE where the host object is gone."""
        return self.of(self._namespace.nodes.get(number))

    def of(self, node: Node) -> Attrs:
        """Present attributes of *node*."""
        return self.describe(node, self._namespace.status_of(node), settled=True)

    def describe(self, node: Node, status: fs.HostStat | None, *, settled: bool = False) -> Attrs:
        """The attributes that go with *status*, None for a synthetic directory.

        Unless they are to be *settled*, a link whose target leads where one has to wait is told as
        volatile, with the size of what it stores. Who looks a name up holds its directory, and the
        kernel can forget nothing in there meanwhile; then it asks again, holding nothing.
        """
        space = self._namespace
        if status is None:
            return Attrs(node.number, space.synthetic_status, 0, volatile=False)
        size, volatile = status.size, space.is_volatile(node)
        if node.file_type == stat.S_IFLNK:
            volatile |= status.nlink > 1  # under its other name it may be another node
            try:
                size = self._link_size(node, status)
            except WouldBlock:
                if settled:
                    raise
                volatile = True
        return Attrs(node.number, status, size, volatile)

    def _link_size(self, node: Node, status: fs.HostStat) -> int:
        """Length of what readlink returns; of what is stored where that no longer fits PATH_MAX.

        Such a link cannot be followed, but it can still be looked at, moved and removed.
        """
        try:
            # Without a time of creation another link may have the inode number by now.
            known = node.target if node.birth_ns else None
            stored = self._stored(node) if known is None else known
            return len(self._rebased(node, stored))
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return status.size

    def setattr(self, number: int, changes: Changes, handle: int | None, caller: Caller) -> Attrs:
        """Change what *changes* names, in the order chmod, chown, truncate, utimens.

        With *handle*, a size is set through it: the right to write was given when it was opened.
        A change of nothing is a chown(2) that names nobody, which clears set-id bits: the kernel
        says it that way, also where somebody writes to such a file who may not keep them.
        """
        space = self._namespace
        node = space.nodes.get(number)
        opened = space.handles.get(handle) if handle is not None else None
        if opened is not None and opened.node.number != number:
            raise ebadf()
        fd = opened.fd if opened is not None and opened.fd is not None else self._inode(node)
        fd = self._permitted("setattr", node, fd, caller)
        if changes == _NOTHING:
            self._drop_set_id_bits(fd, caller)
        if changes.mode is not None:
            self._change_mode(fd, stat.S_IMODE(changes.mode), caller)
        with space.credentials.acting_as(caller):
            if changes.uid is not None or changes.gid is not None:
                fs.change_owner(fd, _id(changes.uid), _id(changes.gid))
            if changes.size is not None:
                _change_size(fd, opened, changes.size)
            if changes.atime_ns is not None or changes.mtime_ns is not None:
                _change_times(fd, changes)
        return self.of(node)

    def _drop_set_id_bits(self, fd: fs.Fd, caller: Caller) -> None:
        """chown(2) that names nobody, which whoever may write may have happen.

        For whoever may not, nothing happens. It may be about to write by what somebody else has
        opened: the write that follows says so, and then they fall.
        """
        credentials = self._namespace.credentials
        try:
            with credentials.acting_as(caller):
                fs.change_owner(fd, -1, -1)
        except PermissionError:
            with suppress(PermissionError):
                with credentials.acting_as(caller):
                    fs.check_access(fd, os.W_OK)
                fs.change_owner(fd, -1, -1)

    def _change_mode(self, fd: fs.Fd, mode: int, caller: Caller) -> None:
        """chmod(2), and the clearing of set-id bits that comes with writing.

        The kernel asks for the latter by a new mode, in the name of a writer who need not own the
        file (pyfuse3 cannot tell it that the host clears them: FUSE_HANDLE_KILLPRIV).
        """
        credentials = self._namespace.credentials
        try:
            with credentials.acting_as(caller):
                fs.change_mode(fd, mode)
        except PermissionError:
            present = stat.S_IMODE(fs.stat_fd(fd).mode)
            if mode == present or mode | _SET_ID_BITS != present | _SET_ID_BITS or mode & ~present:
                raise
            with credentials.acting_as(caller):
                fs.check_access(fd, os.W_OK)
            fs.change_mode(fd, mode)

    def readlink(self, number: int) -> bytes:
        """The target of a symbolic link, rebased where the rules say so."""
        node = self._namespace.nodes.get(number)
        if node.file_type != stat.S_IFLNK:
            raise einval()
        return self._rebased(node, self._stored(node))

    def _stored(self, node: Node) -> bytes:
        node.target = fs.read_link(self._namespace.open_path(node))
        return node.target

    def _rebased(self, node: Node, target: bytes) -> bytes:
        if self._namespace.rules.symlinks == "verbatim" or node.parent is None:
            return target
        return self._links.rebase(node.parent, target)

    def access(self, number: int, mode: int, caller: Caller) -> None:
        """access(2) for *caller*: EROFS for writing what is read-only, EACCES where not allowed."""
        space = self._namespace
        node = space.nodes.get(number)
        fd = self._inode(node)
        if fd is not None:  # a synthetic directory anyone may list and pass
            with space.credentials.acting_as(caller):
                fs.check_access(fd, mode)
        # Writing to a device or FIFO on a read-only mount changes nothing on it (access(2)).
        is_file_or_directory = stat.S_ISREG(node.file_type) or stat.S_ISDIR(node.file_type)
        if mode & os.W_OK and is_file_or_directory and self._access.judge(Held(node, fd)):
            raise erofs()

    def statfs(self) -> os.statvfs_result:
        """The file system of the source at `/`; of the first source where `/` is synthetic.

        The kernel names no inode (pyfuse3 leaves it out), so one answer has to do for all.
        """
        space = self._namespace
        fd = space.where(space.nodes.root).fd or space.sources[0].fd
        return fs.file_system_status(fd)

    # -- extended attributes --------------------------------------------------------------------

    def getxattr(self, number: int, name: bytes, caller: Caller) -> bytes:
        """Raises ENODATA where there is none of that *name*; a synthetic directory has none."""
        fd = self._inode(self._namespace.nodes.get(number))
        if fd is None:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        with self._namespace.credentials.acting_as(caller):
            return fs.get_xattr(fd, name)

    def listxattr(self, number: int, caller: Caller) -> list[bytes]:
        """The names of all extended attributes *caller* may see."""
        fd = self._inode(self._namespace.nodes.get(number))
        if fd is None:
            return []
        with self._namespace.credentials.acting_as(caller):
            names = fs.list_xattrs(fd)
        # The host goes by CAP_SYS_ADMIN here, which this thread keeps under the caller's ids.
        hidden = () if caller.uid == 0 else (b"trusted.",)
        return [name for name in names if not name.startswith(hidden)]

    def setxattr(self, number: int, name: bytes, value: bytes, caller: Caller) -> None:
        """Set one extended attribute."""
        node = self._namespace.nodes.get(number)
        fd = self._permitted("setxattr", node, self._inode(node), caller)
        with self._namespace.credentials.acting_as(caller):
            fs.set_xattr(fd, name, value)

    def removexattr(self, number: int, name: bytes, caller: Caller) -> None:
        """Remove one extended attribute; raises ENODATA where there is none."""
        node = self._namespace.nodes.get(number)
        fd = self._permitted("removexattr", node, self._inode(node), caller)
        with self._namespace.credentials.acting_as(caller):
            fs.remove_xattr(fd, name)

    def _inode(self, node: Node) -> fs.Fd | None:
        """A descriptor of the inode, None for a synthetic directory."""
        if node.file_type == stat.S_IFDIR:
            return self._namespace.where(node).fd
        return self._namespace.open_path(node)

    def _permitted(self, operation: str, node: Node, fd: fs.Fd | None, caller: Caller) -> fs.Fd:
        """*fd*, once *operation* may change the inode it names. Raises EROFS."""
        self._access.permit(operation, caller, inode=Held(node, fd))
        assert fd is not None
        return fd


def _id(value: int | None) -> int:
    return -1 if value is None else value


def _change_size(fd: fs.Fd, opened: Handle | None, size: int) -> None:
    if opened is not None and opened.writable:
        fs.truncate_open(fd, size)
    else:
        fs.truncate(fd, size)


def _change_times(fd: fs.Fd, changes: Changes) -> None:
    """Set times; whoever may write may also set both to now, without owning the file.

    The kernel's UTIME_NOW reaches us as two equal times of this moment (pyfuse3 does not pass the
    flag on), and the host then wants ownership for them: ask again the way utimensat(2) allows.
    """
    try:
        fs.change_times(fd, changes.atime_ns, changes.mtime_ns)
    except PermissionError:
        times = (changes.atime_ns, changes.mtime_ns)
        if any(t is None or abs(time.time_ns() - t) > _TOUCH_WINDOW_NS for t in times):
            raise
        fs.touch(fd)

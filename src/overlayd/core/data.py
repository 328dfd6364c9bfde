"""Operations on open files: opening and creating them, and what is in them.

`read` and `write` may wait for a device and are called off the event loop; `read_cached` never
waits, and may be called there only. All three take a handle and touch no table, so they are safe
beside everything else.
"""

import os
import stat
from typing import NamedTuple

from overlayd.core.access import Access, Held, screen_flags, wants_to_change
from overlayd.core.assembly import Assembly
from overlayd.core.attributes import Attributes
from overlayd.core.handles import Handle, is_writable
from overlayd.core.names import Names
from overlayd.core.namespace import Namespace
from overlayd.core.nodes import Node
from overlayd.core.types import Attrs
from overlayd.core.ways import Way, Ways
from overlayd.errors import eacces, ebadf, eexist, eisdir, erofs
from overlayd.host import fs
from overlayd.host.credentials import Caller
from overlayd.table.guest_path import check_name

_CREATE_ATTEMPTS = 16
_PLENTY = 64 << 20  # bytes; to write as much takes longer than to forget what was removed


class Created(NamedTuple):
    """A new open file and its attributes, lent once."""

    handle: int
    attrs: Attrs


class Origin(NamedTuple):
    """Where the bytes of a handle come from, for whoever moves them past `Data`."""

    fd: fs.Fd
    device: int
    is_slow: bool
    """Whether its file system may keep whoever reads it waiting for ever."""
    is_in_memory: bool
    """Whether reading never waits."""


class Data:
    """Everything that opens files or takes a handle."""

    def __init__(
        self, namespace: Namespace, access: Access, attributes: Attributes, names: Names
    ) -> None:
        self._namespace = namespace
        self._access = access
        self._attributes = attributes
        self._names = names
        self._buffer = memoryview(bytearray())
        """For `read_cached`: new memory costs more than what is read into it."""
        self.ways = Ways()

    def open(self, number: int, flags: int, caller: Caller) -> int:
        """Open a regular file with the rights *caller* has on the host."""
        return self._open(self._namespace.nodes.get(number), flags, caller).number

    def _open(self, node: Node, flags: int, caller: Caller) -> Handle:
        """Pin the inode first, decide by it, then open that very inode."""
        space = self._namespace
        host_flags, assembly = screen_flags(flags), space.assembly
        if node.file_type == stat.S_IFDIR:
            raise eisdir()
        if node.file_type != stat.S_IFREG:  # the kernel opens FIFOs, sockets and devices itself
            raise eacces()
        path = space.open_path(node)
        if wants_to_change(flags):
            self._access.permit("open for writing", caller, inode=Held(node, path))
        with space.credentials.acting_as(caller):
            fd = space.cache.opening(lambda: fs.reopen(path, host_flags))
        handle = self._hold(node, fd, path, host_flags, caller, assembly)
        self._check_direct(handle, flags, path)
        return handle

    def _join(self, node: Node, fd: fs.Fd, flags: int, caller: Caller) -> Way:
        """How the data of a handle goes that is opened with *flags*; *caller* is who writes it.

        A server's rights and delayed errors depend on who has opened a file: through us.
        """

        def find() -> fs.Fd | None:
            return fs.pin(fd) if self._may_pass(node, fd, flags) else None

        with self._namespace.credentials.acting_as(caller, groups=False):
            return self.ways.join(node, find, writes=is_writable(flags), by_root=caller.uid == 0)

    def _may_pass(self, node: Node, fd: fs.Fd, flags: int) -> bool:
        """Whether the data of *node*, opened with *flags* by the first, may go past us."""
        if self._namespace.may_block(node):
            return False
        if is_writable(flags):
            # Of a write past us nobody would wait for the room of what was just removed.
            return not self._namespace.cache.lingers() or fs.free_bytes(fd) > _PLENTY
        kept = self.ways.kept_size
        return not kept or self._namespace.status(fd).size > kept

    def _join_quietly(self, node: Node, fd: fs.Fd, flags: int) -> Way:
        """The same for what is shown read-only: reading it leaves the access time alone."""

        def find() -> fs.Fd | None:
            return self._namespace.quiet.find(fd) if self._may_pass(node, fd, flags) else None

        return self.ways.join(node, find, writes=is_writable(flags), by_root=True)

    def _hold(
        self, node: Node, fd: fs.Fd, path: fs.Fd, flags: int, caller: Caller, assembly: Assembly
    ) -> Handle:
        """A handle on what was opened under *assembly*; what came after it is heeded, too.

        A source may keep a thread waiting for so long that `revoke` has been there already. *path*
        names the same as *fd*.
        """
        has_set_id = is_writable(flags) and fs.has_set_id(fd)
        if self._access.is_behind_read_only(node):
            fs.spare_atime(fd)
            way = self._join_quietly(node, path, flags)
        else:
            way = self._join(node, path, flags, caller)
        # Whatever fails has failed by now: the way is counted until the handle is released.
        handle = self._namespace.handles.open(node, fd, flags, caller)
        handle.way, handle.has_set_id = way, has_set_id
        if handle.writable and self._namespace.assembly is not assembly:
            self.revoke(handle)
            if handle.revoked and handle.cannot_be_revoked:
                self.release(handle.number)
                raise erofs()
        return handle

    def _check_direct(self, handle: Handle, flags: int, fd: fs.Fd) -> None:
        """Raise EINVAL, as the host does, where it cannot do without the page cache.

        The kernel opens a backing file with the guest's *flags*, and would answer EIO.
        """
        if not flags & os.O_DIRECT or handle.way is None or not handle.way.backing:
            return
        try:
            fs.check_direct(fd)
        except OSError:
            self.release(handle.number)
            raise

    def create(self, parent: int, name: bytes, mode: int, flags: int, caller: Caller) -> Created:
        """Create and open a file; without O_EXCL, one that came to be meanwhile is opened."""
        space = self._namespace
        directory = space.nodes.get(parent)
        check_name(name)
        where = space.where(directory)
        if space.is_reserved(where, name):
            raise eexist()
        self._access.permit("create", caller, parent=Held(directory, where.fd))
        assert where.fd is not None
        for _ in range(_CREATE_ATTEMPTS):
            try:
                return self._create_new(directory, where.fd, name, mode, flags, caller)
            except FileExistsError:
                if flags & os.O_EXCL:
                    raise
            try:
                return self._open_existing(directory, name, flags, caller)
            except FileNotFoundError:
                continue
        raise eexist()

    def _create_new(
        self, directory: Node, fd: fs.Fd, name: bytes, mode: int, flags: int, caller: Caller
    ) -> Created:
        space = self._namespace
        host_flags, assembly = screen_flags(flags) & ~os.O_TRUNC, space.assembly
        with space.credentials.acting_as(caller):
            opened = space.cache.opening(
                lambda: fs.create_child(fd, name, host_flags, stat.S_IMODE(mode))
            )
        # By the open file, not by its name: the host may have moved it already.
        node, status = space.adopt_opened(directory, name, opened)
        handle = self._hold(node, opened, opened, host_flags, caller, assembly)
        self._check_direct(handle, flags, opened)
        attrs = self._attributes.describe(node, status)
        space.nodes.lend(node)
        return Created(handle.number, attrs)

    def _open_existing(self, directory: Node, name: bytes, flags: int, caller: Caller) -> Created:
        space = self._namespace
        node, _ = space.look_up(directory, name)
        with space.nodes.lending(node):
            handle = self._open(node, flags, caller)
            return Created(handle.number, self._attributes.of(node))

    # -- through a handle -----------------------------------------------------------------------

    def may_block(self, number: int) -> bool:
        """Whether *number* is open on a file system that may keep a caller waiting."""
        return self._namespace.may_block(self._namespace.handles.get(number).node)

    def origin(self, number: int) -> Origin:
        """What the file *number* is open on. Raises EBADF, EISDIR."""
        handle = self._namespace.handles.get(number)
        return self._origin(handle, _file(handle))

    def origin_to_sync(self, number: int) -> Origin | None:
        """The same for a file or directory stream; None where nothing is on any disk.

        A directory may have to be opened for it, which may wait for its file system.
        """
        handle = self._namespace.handles.get(number)
        fd = self._names.readable(number)
        return None if fd is None else self._origin(handle, fd)

    def _origin(self, handle: Handle, fd: fs.Fd) -> Origin:
        space, node = self._namespace, handle.node
        return Origin(fd, handle.device, space.may_block(node), space.is_in_memory(node))

    def read_cached(self, number: int, offset: int, size: int) -> memoryview | None:
        """What the page cache holds, or None where the device would have to be asked.

        Good until this is called again, and only to be called on the event loop.
        """
        space = self._namespace
        handle = space.handles.get(number)
        if space.may_block(handle.node):
            return None
        if len(self._buffer) < size:
            self._buffer = memoryview(bytearray(size))
        in_memory = space.is_in_memory(handle.node)
        done = fs.read_cached(_file(handle), offset, self._buffer[:size], in_memory=in_memory)
        return None if done is None else self._buffer[:done]

    def read(self, number: int, offset: int, size: int) -> bytes:
        """*size* bytes at *offset*, fewer only at the end of the file."""
        return fs.read(_file(self._namespace.handles.get(number)), offset, size)

    def write(self, number: int, offset: int, data: bytes) -> int:
        """Write *data*; how many bytes the host took.

        With the opener's ids, which the host's quotas and reserves go by. Set-id bits fall as they
        would there: root's writes leave them alone.
        """
        handle = self._namespace.handles.get(number)
        if not handle.writable:
            raise ebadf()
        if handle.revoked:
            raise erofs()
        fd = _file(handle)
        if handle.opener.uid == 0:
            if handle.clears_set_id:
                fs.clear_set_id(fd)
            return fs.write(fd, offset, data)
        groups = fs.is_set_gid(fd)  # whether that falls is all that depends on them
        with self._namespace.credentials.acting_as(handle.opener, groups=groups):
            return fs.write(fd, offset, data)

    def clears_set_id(self, number: int) -> None:
        """From now on no set-id bit survives a write through *number*, even if root opened it."""
        self._namespace.handles.get(number).clears_set_id = True

    def writers(self) -> dict[int, list[Handle]]:
        """The handles that were opened for writing, by the device that `revoke` asks about them."""
        found: dict[int, list[Handle]] = {}
        for handle in self._namespace.handles:
            if handle.writable and handle.fd is not None:
                found.setdefault(handle.device, []).append(handle)
        return found

    def revoke(self, handle: Handle) -> None:
        """Stop writing through *handle* if its file may no longer be changed, or nobody can tell.

        May wait for a device, and for the walk through what is shown read-only.
        """
        try:
            handle.revoked = self._access.judge(Held(handle.node, _file(handle))) is not None
        except OSError:
            handle.revoked = True

    def flush(self, number: int) -> None:
        """What close(2) of one descriptor reports."""
        handle = self._namespace.handles.get(number)
        if handle.fd is not None:
            fs.flush(handle.fd)

    def fsync(self, number: int, data_only: bool) -> None:
        """Return when the host has it on its disk; a synthetic directory always has."""
        fd = self._names.readable(number)
        if fd is not None:
            fs.sync(fd, data_only)

    def release(self, number: int) -> None:
        """Close a file or directory stream, once no other operation uses its descriptor."""
        handle = self._namespace.handles.close(number)
        if handle.way is not None:
            self.ways.leave(handle.way, writes=handle.writable)


def _file(handle: Handle) -> fs.Fd:
    if handle.fd is None:
        raise ebadf()
    if handle.is_path:
        raise eisdir()
    return handle.fd

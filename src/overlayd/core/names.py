"""Operations on names: looking them up, making, moving and removing them."""

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from overlayd.core.access import Access, Held
from overlayd.core.attributes import Attributes
from overlayd.core.namespace import Found, Namespace, Where
from overlayd.core.nodes import Node
from overlayd.core.numbers import NodeKey
from overlayd.core.types import Attrs
from overlayd.errors import ebusy, eexist, einval, erofs, estale, exdev
from overlayd.host import fs
from overlayd.host.credentials import Caller
from overlayd.table.guest_path import check_name


class Renamed(NamedTuple):
    """The numbers of what was moved, -1 where the kernel does not know it."""

    moved: int
    exchanged: int | None
    """Of what went the other way, None where nothing did."""


class Names:
    """Everything that takes a directory and a name."""

    def __init__(self, namespace: Namespace, access: Access, attributes: Attributes) -> None:
        self._namespace = namespace
        self._access = access
        self._attributes = attributes

    def lookup(self, parent: int, name: bytes) -> Attrs:
        """The object *name* in *parent*, lent once. Raises ENOENT, ENAMETOOLONG, ESTALE."""
        nodes = self._namespace.nodes
        node, status = self._namespace.look_up(nodes.get(parent), name)
        try:
            attrs = self._attributes.describe(node, status)
        except BaseException:
            nodes.discard_if_unused(node)
            raise
        nodes.lend(node)
        return attrs

    def forget(self, number: int, count: int) -> Node | None:
        """The kernel gave back *count* references to *number*; the node that is gone with them."""
        gone = self._namespace.nodes.forget(number, count)
        if gone is not None:
            self._namespace.cache.drop(gone)
        return gone

    def opendir(self, number: int, caller: Caller) -> int:
        """Open a directory stream; the caller needs read permission on the host.

        The host's directory is opened for reading only when it is first listed: the kernel may have
        the listing.
        """
        space = self._namespace
        node = space.nodes.get(number)
        where = space.where(node)
        if where.fd is not None:
            with space.credentials.acting_as(caller):
                fs.check_access(where.fd, os.R_OK)
        handle = space.handles.open(node, where.fd, os.O_RDONLY | os.O_DIRECTORY, caller)
        handle.is_path = where.fd is not None
        if node.mount is not where.mount and handle.node is node:  # another table came between
            space.handles.close(handle.number)
            raise estale()
        return handle.number

    def readable(self, number: int) -> fs.Fd | None:
        """What the directory stream *number* is open on, opened for reading; None for a synthetic
        directory.

        With the daemon's own rights: the caller's were looked at when the stream was opened.
        """
        handle = self._namespace.handles.get(number)
        fd = handle.fd
        if handle.is_path and fd is not None:
            handle.fd = fd = self._namespace.cache.opening(partial(fs.reopen, fd, handle.flags))
            handle.is_path = False
            if self._access.is_behind_read_only(handle.node):
                fs.spare_atime(fd)
        return fd

    # -- making ---------------------------------------------------------------------------------

    def mkdir(self, parent: int, name: bytes, mode: int, caller: Caller) -> Attrs:
        """Make a directory that belongs to *caller*."""
        bits = stat.S_IMODE(mode)
        return self._make(
            "mkdir", parent, name, stat.S_IFDIR, caller, lambda fd: fs.make_dir(fd, name, bits)
        )

    def mknod(self, parent: int, name: bytes, mode: int, device: int, caller: Caller) -> Attrs:
        """Make a file, FIFO, socket or device node that belongs to *caller*."""
        return self._make(
            "mknod", parent, name, mode, caller, lambda fd: fs.make_node(fd, name, mode, device)
        )

    def symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Attrs:
        """Make a symbolic link that stores *target* as given."""
        return self._make(
            "symlink",
            parent,
            name,
            stat.S_IFLNK,
            caller,
            lambda fd: fs.make_symlink(fd, name, target),
        )

    def link(self, number: int, new_parent: int, new_name: bytes, caller: Caller) -> Attrs:
        """Give an inode another name in the same mount."""
        space = self._namespace
        node, directory = space.nodes.get(number), space.nodes.get(new_parent)
        check_name(new_name)
        where = space.where(directory)
        # The kernel names the inode, not the path: the name seen last is the one that was meant.
        mounts = space.mounts_of(node)
        if mounts and mounts[0] != where.mount:  # without a name left, the host says ENOENT
            raise exdev()
        self._check_free(where, new_name)
        fd = space.open_path(node)
        self._access.permit(
            "link", caller, new_parent=Held(directory, where.fd), inode=Held(node, fd)
        )
        assert where.fd is not None
        with space.credentials.acting_as(caller):
            fs.make_link(fd, where.fd, new_name)
        return self._made(directory, new_name, node.file_type)

    def _make(
        self,
        operation: str,
        parent: int,
        name: bytes,
        mode: int,
        caller: Caller,
        make: Callable[[fs.Fd], None],
    ) -> Attrs:
        space = self._namespace
        directory = space.nodes.get(parent)
        check_name(name)
        where = space.where(directory)
        self._check_free(where, name)
        self._access.permit(operation, caller, parent=Held(directory, where.fd))
        assert where.fd is not None
        with space.credentials.acting_as(caller):
            make(where.fd)
        return self._made(directory, name, stat.S_IFMT(mode) or stat.S_IFREG)

    def _made(self, directory: Node, name: bytes, file_type: int) -> Attrs:
        """What has just been made, lent once.

        Raises ESTALE where the host has something else by that name by now: the kernel then asks
        again, while of an object that is not of the kind it wanted it would make EIO.
        """
        node, status = self._namespace.look_up(directory, name)
        with self._namespace.nodes.lending(node):
            if node.file_type != file_type:
                raise estale()
            return self._attributes.describe(node, status)

    def _check_free(self, where: Where, name: bytes) -> None:
        if self._namespace.is_reserved(where, name):
            raise eexist()

    # -- removing -------------------------------------------------------------------------------

    def unlink(self, parent: int, name: bytes, caller: Caller) -> None:
        """Remove a name that is no directory."""
        self._remove("unlink", parent, name, caller, fs.remove_file)

    def rmdir(self, parent: int, name: bytes, caller: Caller) -> None:
        """Remove an empty directory."""
        self._remove("rmdir", parent, name, caller, fs.remove_dir)

    def _remove(
        self,
        operation: str,
        parent: int,
        name: bytes,
        caller: Caller,
        remove: Callable[[fs.Fd, bytes], None],
    ) -> None:
        space = self._namespace
        directory = space.nodes.get(parent)
        check_name(name)
        where = space.where(directory)
        victim = self._find_victim(directory, where, name, goes=True)
        try:
            if where.fd is not None:
                held = Held(directory, where.fd)
                self._access.permit(operation, caller, parent=held, inode=victim.held or held)
            fd = self._movable(where, name, victim)
            with space.credentials.acting_as(caller):
                remove(fd, name)
            self._bury(victim, directory, name)
        finally:
            self._let_go(victim)

    def _movable(self, where: Where, name: bytes, victim: "_Victim") -> fs.Fd:
        """The descriptor of *where*, unless something holds *name* in place.

        Raises EBUSY for what the mount table or overlayd's own mount holds, EROFS in a synthetic
        directory.
        """
        if self._namespace.is_reserved(where, name):
            raise ebusy()
        if victim.found is not None and victim.found.status is None:
            raise ebusy()
        if where.fd is None:
            raise erofs()
        return where.fd

    def _find_victim(self, directory: Node, where: Where, name: bytes, *, goes: bool) -> "_Victim":
        """What *name* is before it is moved or, where it *goes*, loses this name.

        Directories are held, to be judged; what goes is, for whoever still looks at it.
        """
        space = self._namespace
        try:
            found, fd = space.hold(where, name) if goes else (space.child(where, name), None)
        except FileNotFoundError:
            return _NOTHING
        if found.status is None or found.position is not None:
            return _Victim(found, None, None)
        if found.status.is_dir:
            node = space.adopt(directory, name, found)
            return _Victim(found, node, fd or space.open_path(node))
        known = space.known(directory, name, found)
        if goes and fd is None and known is not None and known.other_places is None:
            with suppress(OSError):
                fd = space.open_path(known)
        return _Victim(found, known, fd)

    def _let_go(self, victim: "_Victim") -> None:
        """Drop the node, if it was made for this alone."""
        if victim.node is not None and not victim.node.lookups:
            self._namespace.nodes.discard_if_unused(victim.node)

    def _bury(self, victim: "_Victim", directory: Node, name: bytes) -> None:
        """Bring the tables in line with a name that is gone."""
        space = self._namespace
        if victim.node is None:
            return
        if space.nodes.displace(victim.node, directory, name) and victim.fd is not None:
            # The kernel may go on using it: a working directory, an O_PATH descriptor.
            space.cache.put_removed(victim.node, victim.fd)

    # -- moving ---------------------------------------------------------------------------------

    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int, caller: Caller
    ) -> "Renamed":
        """renameat2(2) within one mount: plain, RENAME_NOREPLACE or RENAME_EXCHANGE."""
        space = self._namespace
        old_dir, new_dir = space.nodes.get(parent), space.nodes.get(new_parent)
        check_name(name)
        check_name(new_name)
        if flags not in (0, fs.RENAME_NOREPLACE, fs.RENAME_EXCHANGE):
            raise einval()
        old = space.where(old_dir)
        new = old if new_dir is old_dir else space.where(new_dir)
        if old.mount != new.mount:
            raise exdev()
        moved = self._find_victim(old_dir, old, name, goes=False)
        replaced = _NOTHING
        try:
            goes = flags != fs.RENAME_EXCHANGE
            replaced = self._find_victim(new_dir, new, new_name, goes=goes)
            if old.fd is not None and new.fd is not None:
                self._permit_rename(
                    Held(old_dir, old.fd), Held(new_dir, new.fd), (moved, replaced), caller
                )
            old_fd = self._movable(old, name, moved)
            new_fd = self._movable(new, new_name, replaced)
            with space.credentials.acting_as(caller):
                fs.rename(old_fd, name, new_fd, new_name, flags)
            self._note_rename(moved, replaced, (old_dir, name), (new_dir, new_name), flags)
            return Renamed(moved.number, None if goes else replaced.number)
        finally:
            self._let_go(moved)
            self._let_go(replaced)

    def _permit_rename(
        self, old: Held, new: Held, victims: tuple["_Victim", "_Victim"], caller: Caller
    ) -> None:
        self._access.permit("rename", caller, parent=old, new_parent=new)
        for victim in victims:
            if victim.held is not None and victim.held.node.file_type == stat.S_IFDIR:
                self._access.permit(
                    "rename of a directory", caller, parent=old, new_parent=new, inode=victim.held
                )

    def _note_rename(
        self, moved: "_Victim", replaced: "_Victim", old: "_Name", new: "_Name", flags: int
    ) -> None:
        """Bring the tables in line with what the host did."""
        if moved.is_same_object(replaced):
            return  # rename(2): two names of one file, both stay
        if flags == fs.RENAME_EXCHANGE:
            self._carry(replaced, new, old)
        else:
            self._bury(replaced, *new)
        self._carry(moved, old, new)

    def _carry(self, moved: "_Victim", old: "_Name", new: "_Name") -> None:
        """Bring the tables in line with a name that moved."""
        nodes, node = self._namespace.nodes, moved.node
        if node is None:
            return
        if node.file_type == stat.S_IFLNK and old[0] is not new[0]:
            assert node.key is not None
            nodes.rekey(node, NodeKey(node.key.dev, node.key.ino, -new[0].number))
        nodes.carry(node, old, new)


_Name = tuple[Node, bytes]


class _Victim(NamedTuple):
    """What a name was before the host was asked to take it away or move it."""

    found: Found | None
    """None where there was nothing."""
    node: Node | None
    fd: fs.Fd | None

    @property
    def held(self) -> Held | None:
        """The object, where it is held."""
        return Held(self.node, self.fd) if self.node is not None and self.fd is not None else None

    @property
    def number(self) -> int:
        """The node's number, -1 where the kernel does not know it."""
        return -1 if self.node is None else self.node.number

    def is_same_object(self, other: "_Victim") -> bool:
        """Whether both names are of one inode."""
        if self.found is None or other.found is None:
            return False
        mine, theirs = self.found.status, other.found.status
        if mine is None or theirs is None:
            return False
        return (mine.dev, mine.ino) == (theirs.dev, theirs.ino)


_NOTHING = _Victim(None, None, None)

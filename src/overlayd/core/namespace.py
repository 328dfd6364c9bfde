"""The namespace: which object a name in a directory is, and how to get hold of it on the host.

`child` is the one masking rule: the mount tree is asked before the host, for host and synthetic
directories alike; `names` is the same rule for listings. Everything else resolves through them.
"""

import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

from overlayd.core.assembly import Assembly, Attachment, Position, Survey, assemble, provider
from overlayd.core.descriptors import DescriptorCache
from overlayd.core.devices import Devices
from overlayd.core.handles import Handle, HandleTable
from overlayd.core.nodes import Node, NodeTable, Place, provider_of
from overlayd.core.numbers import DIRECTORY, key_of
from overlayd.core.types import Rules, WouldBlock
from overlayd.errors import enoent, enotdir, estale
from overlayd.host import fs
from overlayd.host.credentials import Credentials
from overlayd.host.quiet import QuietMounts
from overlayd.table.guest_path import GuestPath, check_name


class Where(NamedTuple):
    """A directory of the namespace as a place to look names up in."""

    position: Position | None
    mount: Attachment | None
    fd: fs.Fd | None
    """None for a synthetic directory, as is *mount*."""


class Found(NamedTuple):
    """What a name turned out to be."""

    position: Position | None
    mount: Attachment | None
    """What provides it; None for a synthetic directory, as is *status*."""
    status: fs.HostStat | None
    source: fs.Fd | None
    """The source's own descriptor, at a mount point."""


class _Patience(threading.local):
    """Whether this thread may wait for file systems that keep it waiting."""

    granted = False


class Namespace:
    """The mount table, its sources, and the tables of what the kernel and guests hold."""

    def __init__(self, wanted: Survey, rules: Rules, descriptors: int = 1024) -> None:
        self.rules = rules
        self.assembly = assemble(wanted, {})
        self.nodes = NodeTable(self.assembly.root)
        self.handles = HandleTable()
        self.cache = DescriptorCache(descriptors)
        self.credentials = Credentials()
        self._devices = Devices()
        self.quiet = QuietMounts()
        self._patience = _Patience()
        self.use(self.assembly)
        now = time.time_ns()
        self.synthetic_status = fs.HostStat(
            *(0, 0, 0, 0), stat.S_IFDIR | 0o555, 2, *(0, 0, 0, 0, 0), 4096, now, now, now
        )

    @property
    def own_device(self) -> int | None:
        """The device number of this very mount, once it exists: never asked for anything."""
        return self._devices.own

    @own_device.setter
    def own_device(self, device: int | None) -> None:
        self._devices.own = device

    def use(self, assembly: Assembly) -> None:
        """Go by *assembly* from now on; see `remount` for what is known already."""
        self.assembly = assembly
        self.table = assembly.table
        self.sources = assembly.sources
        # All of them, and now: an operation must know before it changes anything.
        self._devices.hold(source.stat.dev for source in self.sources)
        self.quiet.hold(source.stat.mount_id for source in self.sources)
        slow = [source for source in self.sources if self._devices.may_block(source.stat)]
        self.has_slow_source = bool(slow)
        self.back(self.nodes.root)

    # -- the masking rule -----------------------------------------------------------------------

    def child(self, where: Where, name: bytes) -> Found:
        """What *name* in the directory *where* is; raises ENOENT where there is nothing.

        A position of the mount tree hides whatever the host has there: wholly at a mount point;
        above one, the host's directory shows with the mount points on top, and anything that is
        no directory does not show. Where overlayd's own mount lies in a source, or another
        overlayd's, there is an empty directory (SPEC.md section 2).

        What is mounted here is not asked, since who looks up or lists the names beside it must not
        wait for it: its status is what the host's kernel knows, for which object it is.
        """
        position = where.position.children.get(name) if where.position is not None else None
        if position is not None:
            return self._child_at(position, where, name)
        if where.fd is None:
            raise enoent()
        status = fs.stat_child(where.fd, name)
        if status.dev not in self._devices.plain:
            status = self._look_again(where.fd, name, status)
            if self._is_overlay(status):
                return Found(None, None, None, None)
        return Found(None, where.mount, status, None)

    def _child_at(self, position: Position, where: Where, name: bytes) -> Found:
        if position.mount is not None:
            source = position.mount.fd
            return Found(position, position.mount, self._unasked_status(source), source)
        status = None
        if where.fd is not None:
            with suppress(FileNotFoundError):
                status = self._look_again(where.fd, name, fs.stat_child(where.fd, name))
        if status is None or not status.is_dir or self._is_overlay(status):
            return Found(position, None, None, None)
        return Found(position, where.mount, status, None)

    def hold(self, where: Where, name: bytes) -> tuple[Found, fs.Fd | None]:
        """What `child` tells of *name*, and the very object, where that is a local source's.

        Without a descriptor, too, where there is none to be had: names can be removed all the same.
        """
        is_local = where.mount is not None and where.mount.stat.dev in self._devices.plain
        if where.fd is not None and is_local and not self.is_reserved(where, name):
            try:
                fd, status = self.cache.opening(partial(fs.hold_child, where.fd, name))
            except FileNotFoundError:
                raise
            except OSError:
                return self.child(where, name), None
            if status.dev in self._devices.plain:
                return Found(None, where.mount, status, None), fd
        return self.child(where, name), None

    def names(self, where: Where, host_names: Sequence[bytes]) -> list[bytes]:
        """The names in a directory whose source holds *host_names*; each once."""
        if where.position is None or not where.position.children:
            return list(host_names)
        decided = where.position.children
        return [name for name in host_names if name not in decided] + list(decided)

    def names_now(self, directory: Node) -> list[bytes]:
        """The names in *directory* at this moment. Raises what opening it does."""
        where = self.where(directory)
        if where.fd is None:
            return self.names(where, [])
        fd = fs.reopen(where.fd, os.O_RDONLY | os.O_DIRECTORY)
        return self.names(where, fs.list_names(fd))

    def is_reserved(self, where: Where, name: bytes) -> bool:
        """Whether *name* is a mount point or lies above one: nobody moves or removes it."""
        return where.position is not None and name in where.position.children

    def _look_again(self, fd: fs.Fd, name: bytes, status: fs.HostStat) -> fs.HostStat:
        """What *name* in *fd* is, of which *status* is what the host's kernel knows."""
        device = status.dev
        if device in self._devices.plain or device == self.own_device:
            return status
        may_block = self._devices.may_block(status)
        if may_block and not self._is_overlay(status):
            if status.is_dir and not self.is_patient():  # the root of a mount: see `child`
                return self._devices.trim(status)
            self.consent_to_wait(device)
            status = fs.stat_child(fd, name, fresh=True)
        return self._devices.trim(status)

    def is_plain(self, node: Node) -> bool:
        """Whether the file system *node* lies on is a source's, and local: one look is enough."""
        return node.key is not None and node.key.dev in self._devices.plain

    def _is_overlay(self, status: fs.HostStat) -> bool:
        return status.dev == self.own_device or self._devices.is_found_overlay(status)

    # -- waiting for slow file systems ----------------------------------------------------------

    @contextmanager
    def patience(self) -> Iterator[None]:
        """In this thread, for the block: file systems that may block may be asked."""
        self._patience.granted = True
        try:
            yield
        finally:
            self._patience.granted = False

    def consent_to_wait(self, device: int) -> None:
        """Raise WouldBlock unless this thread may wait for *device*."""
        if not self.is_patient():
            raise WouldBlock(device)

    def is_patient(self) -> bool:
        """Whether this thread may wait for file systems that keep it waiting."""
        return self._patience.granted

    def consent_to_reach(self, node: Node) -> None:
        """Raise WouldBlock where *node* may keep this thread waiting and it may not wait."""
        blocking = self._devices.blocking
        if blocking and node.key is not None and node.key.dev in blocking:
            self.consent_to_wait(node.key.dev)

    def consent_to_enter(self, status: fs.HostStat) -> None:
        """The same where *status* is all that is known of it yet."""
        if self._devices.may_block(status):
            self.consent_to_wait(status.dev)

    def is_slow(self, status: fs.HostStat) -> bool:
        """Whether the file system of an object with *status* may keep a caller waiting."""
        return self._devices.may_block(status)

    def may_block(self, node: Node) -> bool:
        """Whether *node* lies on a file system that may keep a caller waiting."""
        return node.key is not None and node.key.dev in self._devices.blocking

    def is_in_memory(self, node: Node) -> bool:
        """Whether reading *node* can never wait for a device."""
        return node.key is not None and node.key.dev in self._devices.in_memory

    def is_volatile(self, node: Node) -> bool:
        """Whether *node* must be asked for each time: another guest path may change it.

        Sources that overlap show one directory twice, and of a file that has names in several
        mounts the kernel must say again by which of them it was reached.
        """
        if node.key is None:
            return False
        if node.other_places is not None:
            mounts = self.mounts_of(node)
            if any(mount is not mounts[0] for mount in mounts):
                return True
        mount = provider_of(node)
        return mount is not None and mount.overlaps

    def is_open_on(self, handle: Handle) -> bool:
        """Whether *handle* is open on what its node stands for now."""
        return handle.fd is not None and _is(handle.node, self.status(handle.fd))

    def status(self, fd: fs.Fd) -> fs.HostStat:
        """Status of an opened host object, asked of its server if it has one."""
        status = fs.stat_fd(fd)
        if status.dev in self._devices.plain:
            return status
        if self._devices.may_block(status):
            self.consent_to_wait(status.dev)
            status = fs.stat_fd(fd, fresh=True)
        return self._devices.trim(status)

    def _unasked_status(self, fd: fs.Fd) -> fs.HostStat:
        """Status of a source as the host's kernel knows it; nobody is waited for."""
        return self._devices.trim(fs.stat_fd(fd))

    # -- from what was found to a node ----------------------------------------------------------

    def look_up(self, parent: Node, name: bytes) -> tuple[Node, fs.HostStat | None]:
        """The node *name* in *parent* is, not yet lent, with its status (None: synthetic)."""
        check_name(name)
        found = self.child(self.where(parent), name)
        return self.adopt(parent, name, found), found.status

    def adopt(self, parent: Node, name: bytes, found: Found) -> Node:
        """The node for *found*, seen as *name* in *parent*; not yet lent."""
        position, mount, status, _ = found
        if status is not None and (position is None or not status.is_dir):
            node = self.nodes.obtain(key_of(parent.number, mount, status), status, mount)
        elif position is not None:
            node = self.nodes.obtain_position(position, mount)
            self._set_backing(node, found)
        else:
            node = self.nodes.obtain_empty(parent, name)
        self.nodes.place(node, parent, name)
        return node

    def adopt_opened(self, parent: Node, name: bytes, fd: fs.Fd) -> tuple[Node, fs.HostStat]:
        """The node for a file just created and opened as *name* in *parent*; not yet lent."""
        status = self.status(fd)
        return self.adopt(parent, name, Found(None, parent.mount, status, None)), status

    def known(self, parent: Node, name: bytes, found: Found) -> Node | None:
        """The node for *found*, if the kernel may already know it."""
        if found.status is None or found.position is not None:
            return None
        return self.nodes.find(key_of(parent.number, found.mount, found.status))

    def back(self, node: Node) -> None:
        """Note what is attached at the position where *node* is."""
        assert node.position is not None
        mount = node.position.mount
        status = None if mount is None else mount.stat
        self._set_backing(node, Found(node.position, mount, status, None))

    def _set_backing(self, node: Node, found: Found) -> None:
        """Note which host directory now is behind a position of the mount tree, if one is."""
        key = None
        if found.status is not None:
            key = key_of(node.number, found.mount, found.status)
        if key != node.key:
            self.cache.drop(node)
            node.key = key
            node.birth_ns = 0 if found.status is None else found.status.birth_ns
        node.mount = found.mount

    # -- from a node to the host ----------------------------------------------------------------

    def where(self, node: Node) -> Where:
        """*node*, a directory, as a place to look names up in. Raises ESTALE, ENOTDIR."""
        if node.file_type != stat.S_IFDIR:
            raise enotdir()
        position, mount = node.position, node.mount
        if position is not None and position.mount is not None:
            mount = position.mount
            if mount.stat.dev in self._devices.blocking:
                self.consent_to_wait(mount.stat.dev)
            return Where(position, mount, mount.fd)
        return Where(position, mount, None if mount is None else self._directory(node))

    def status_of(self, node: Node) -> fs.HostStat | None:
        """Present status of *node*, None for a synthetic directory. Raises ESTALE."""
        if node.file_type != stat.S_IFDIR:
            return self._file_status(node)
        position = node.position
        if position is not None and position.mount is None and node.parent is not None:
            found = self.child(self.where(node.parent), node.name)
            self._set_backing(node, found)
            return found.status
        if node.mount is not None and node.mount.gone:
            return self.status(self._held_open(node))
        fd = self.where(node).fd
        return None if fd is None else self.status(fd)

    def open_path(self, node: Node) -> fs.Fd:
        """A descriptor, O_PATH or better, of *node*'s inode. Raises ESTALE where it is gone."""
        if node.file_type == stat.S_IFDIR:
            fd = self.where(node).fd
            if fd is None:
                raise estale()
            return fd
        return self._open_file(node)

    def _directory(self, node: Node) -> fs.Fd:
        """The descriptor of a host directory, opened again from its parents where need be."""
        self.consent_to_reach(node)
        if (fd := self._open_already(node)) is not None:
            return fd
        chain = [node]
        while True:
            at = chain[-1].parent
            if at is None:
                raise estale()
            fd = self._open_already(at)
            if fd is not None:
                break
            chain.append(at)
        while chain:
            at = chain.pop()
            fd = self._open_directory(at, fd)
            self.cache.put(at, fd)
        return fd

    def _open_already(self, node: Node) -> fs.Fd | None:
        """The descriptor of a host directory, if it is at hand. Raises ESTALE."""
        mount, position = node.mount, node.position
        if mount is None or mount.gone:
            raise estale()
        if position is not None and position.mount is not None:
            return position.mount.fd
        return self.cache.get(node)

    def _open_directory(self, node: Node, parent: fs.Fd) -> fs.Fd:
        try:
            return self._open_checked(node, parent, node.name)
        except OSError as error:
            # The host renamed or removed it; whoever has it open goes on with what is open.
            with suppress(OSError):
                return self._held_open(node)
            if isinstance(error, FileNotFoundError | NotADirectoryError):
                raise estale() from None
            raise

    def _held_open(self, node: Node) -> fs.Fd:
        """What a guest has open of *node*. Raises ESTALE where none has."""
        fd = self.handles.descriptor_on(node)
        if fd is None:
            raise estale()
        return fd

    def _open_checked(self, node: Node, parent: fs.Fd, name: bytes) -> fs.Fd:
        """Open *name* and make sure that it still is *node*; raises ESTALE where it is not."""
        # As the host's kernel knows it: whatever it is, nobody is asked.
        fd, status = self.cache.opening(partial(fs.hold_child, parent, name))
        if node.key is None or (status.dev, status.ino) != node.key[:2]:
            raise estale()
        if status.dev not in self._devices.plain:
            status = self.status(fd)
        if not _is(node, status):
            raise estale()
        return fd

    def _open_file(self, node: Node) -> fs.Fd:
        if node.handles and (fd := self.handles.descriptor_on(node)) is not None:
            return fd
        self.consent_to_reach(node)
        parent = node.parent
        decided = parent.position.children if parent and parent.position else ()
        if parent is not None and node.other_places is None and node.name not in decided:
            # Nothing hides the name: what it opens needs to be checked, and nothing before.
            with suppress(OSError):
                return self._open_checked(node, self._directory(parent), node.name)
        for place in node.places:
            try:
                where = self.where(place.parent)
                found = self.child(where, place.name)
                if found.source is not None and found.status and _is(node, found.status):
                    return found.source
                if found.source is None and where.fd is not None:
                    return self._open_checked(node, where.fd, place.name)
            except OSError:
                continue
        pinned = self.cache.get(node)
        if pinned is None:
            raise estale()
        return pinned

    def _file_status(self, node: Node) -> fs.HostStat:
        if node.handles and (fd := self.handles.descriptor_on(node)) is not None:
            return self.status(fd)
        if node.other_places is None and node.parent is not None:
            try:
                found = self.child(self.where(node.parent), node.name)
                if found.status is not None and _is(node, found.status):
                    return found.status if found.source is None else self.status(found.source)
            except FileNotFoundError:
                pass
        return self.status(self._open_file(node))

    # -- where a node lies ----------------------------------------------------------------------

    def guest_path(self, node: Node) -> GuestPath:
        """A guest path of *node*, by its newest name: for people and for `..`, never to open."""
        names: list[bytes] = []
        at: Node | None = node
        while at is not None and at.parent is not None:
            names.append(at.name)
            at = at.parent
        return tuple(reversed(names))

    def is_still_at(self, node: Node, place: Place) -> bool:
        """Whether *place* names the object that *node* stands for."""
        try:
            found = self.child(self.where(place.parent), place.name)
        except OSError:
            return False
        return found.status is not None and _is(node, found.status)

    def mounts_of(self, node: Node) -> list[Attachment | None]:
        """The mount that each known name of *node* lies in, the most recent first.

        A directory has one; a file attached by itself is a mount of its own.
        """
        if node.file_type == DIRECTORY:
            return [node.mount]
        if node.other_places is None:
            return [] if node.parent is None else [provider_of(node)]
        return [provider(parent.position, parent.mount, name) for parent, name in node.places]


def _is(node: Node, status: fs.HostStat) -> bool:
    """Whether a host object is the one *node* stands for."""
    key = node.key
    if key is None or (key.dev, key.ino) != (status.dev, status.ino):
        return False
    if node.position is not None:
        return status.is_dir
    return node.file_type == status.file_type and node.birth_ns == status.birth_ns

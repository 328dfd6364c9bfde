"""The adapter: pyfuse3's requests in, the core's answers out. It decides nothing.

Handlers are plain functions; `answering` says how they come to be answered, and turns what they
raise into what the kernel is told.
"""

import errno
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from overlayd.core.listings import Entry
from overlayd.core.overlay import Overlay
from overlayd.core.types import Attrs, Changes, ErrorStyle, WouldBlock
from overlayd.errors import estale
from overlayd.host.credentials import Caller
from overlayd.host.fs import HostStat
from overlayd.kernel import wire
from overlayd.kernel.cache import LASTING, CachePolicy
from overlayd.kernel.coherence import ABSENT, Coherence
from overlayd.kernel.forgetting import Crowded
from overlayd.kernel.passthrough import Mode, Passthrough
from overlayd.kernel.requests import Requests, answering, answering_then
from overlayd.kernel.throttled import LONG_NS, Throttled
from overlayd.kernel.wire import Validity

log = logging.getLogger(__name__)

ALIVE = b"system.overlayd"
"""An extended attribute that nothing has. The daemon answers for it at once and by itself, and the
kernel always asks, holding no lock that a request which waits for a source may hold too."""

_KEPT_SIZE = 128 * 1024  # bytes: what the kernel reads ahead, and so asks for at once
_MOST_DOUBTED = 100
"""Whoever is killed meanwhile does not ask again."""


# -- what is counted after an answer, on the event loop -------------------------------------------


def _note_crowd(operations: Any, _answer: object, _number: int) -> None:
    operations.crowded.note(len(operations.nodes))


def _note_stream(operations: Any, handle: int, _inode: int) -> None:
    operations.counters.opened(handle)


def _note_open(operations: Any, info: FileInfo, _inode: int) -> None:
    operations.counters.opened(info.fh)
    operations.coherence.settle_doubts()


def _note_created(operations: Any, created: tuple[FileInfo, EntryAttributes], _parent: int) -> None:
    _note_open(operations, created[0], _parent)


def _note_read(operations: Any, data: bytes, handle: int) -> None:
    operations.counters.read(handle, len(data))


def _note_written(operations: Any, count: int, handle: int) -> None:
    operations.counters.written(handle, count)
    operations.coherence.written(handle)


class Operations(Requests):
    """One mount's request handlers."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(
        self,
        overlay: Overlay,
        cache: CachePolicy,
        errors: ErrorStyle,
        passthrough: Mode = "off",
    ) -> None:
        super().__init__(overlay, errors)
        self.crowded = Crowded()
        self.nodes = overlay.namespace.nodes
        self._names = overlay.names
        self._listings = overlay.listings
        self._attributes = overlay.attributes
        self._data = overlay.data
        self.coherence = Coherence(overlay.namespace, cache)
        self.passthrough = overlay.data.ways.registry = Passthrough(passthrough)
        self.configure(cache, errors)
        self._doubted: list[tuple[int, int, bytes]] = []
        """The links that the kernel was told to ask for again."""
        self._flushes = overlay.namespace.has_slow_source
        self._throttled = Throttled()

    def configure(self, cache: CachePolicy, errors: ErrorStyle) -> None:
        """Go by these settings from now on."""
        self.error_style = errors
        wire.call_read_only(self.named(errno.EROFS))
        self.coherence.policy = cache
        # What is read past us has the kernel ask for the access time whenever it is looked at next.
        self._data.ways.kept_size = _KEPT_SIZE if cache.watches else 0

    def _device(self, handle: int) -> int:
        return self._overlay.namespace.handles.get(handle).device

    def _consent_to_wait(self, handle: int) -> None:
        """Go on in a thread, for what *handle* is open on may take its time."""
        self._overlay.namespace.consent_to_wait(self._device(handle))

    # -- answers --------------------------------------------------------------------------------

    def _entry(self, attrs: Attrs, near: float) -> EntryAttributes:
        """*near* is how long names hold in the directory where *attrs* were found."""
        entry = EntryAttributes()
        validity = self.coherence.validity(attrs, near)
        entry.entry_timeout, entry.attr_timeout = validity
        _fill(entry, attrs.number, attrs.stat, attrs.size)
        return entry

    def _absent(self, near: float) -> EntryAttributes:
        """Tell the kernel to remember that a name does not exist."""
        entry = EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(0)
        entry.entry_timeout, entry.attr_timeout = near, 0
        return entry

    def _opened(self, handle: int, *, keeps: bool) -> FileInfo:
        return FileInfo(fh=pyfuse3.FileHandleT(handle), keep_cache=keeps)

    @staticmethod
    def _caller(ctx: RequestContext) -> Caller:
        return Caller(ctx.uid, ctx.gid, ctx.pid)

    @staticmethod
    def _changes(attr: EntryAttributes, fields: pyfuse3.SetattrFields) -> Changes:
        return Changes(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )

    @staticmethod
    def _tell(token: pyfuse3.ReaddirToken, entries: list[Entry], validities: list[Validity]) -> int:
        """Put *entries* into a reply; how many of them the kernel takes."""
        answer = EntryAttributes()  # for all of them: what it holds is copied at once
        reply = pyfuse3.readdir_reply
        taken = 0
        near = seconds = None
        for (name, attrs, cookie, _, _), validity in zip(entries, validities, strict=True):
            if validity[0] != near or validity[1] != seconds:
                near, seconds, _ = validity
                answer.entry_timeout, answer.attr_timeout = near, seconds
            number, status, size, _ = attrs
            _fill(answer, number, status, size)
            if not reply(token, name, answer, cookie):
                break
            taken += 1
        return taken

    def _watched(self, attrs: Attrs, near: float) -> Attrs:
        """*attrs*, from after what they are of has come to be watched itself, if it can be."""
        if near == LASTING and self.coherence.watch(attrs.number):
            with suppress(OSError, WouldBlock):
                return self._attributes.getattr(attrs.number)
        return attrs

    def _made(self, parent: int, name: bytes, attrs: Attrs, near: float) -> EntryAttributes:
        entry = self._entry(attrs, near)
        self.coherence.made(parent, name, attrs.number)
        return entry

    # -- names ----------------------------------------------------------------------------------

    @answering_then(_note_crowd)
    def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        near = self.coherence.names_in(parent_inode)
        try:
            attrs = self._names.lookup(parent_inode, name)
        except FileNotFoundError:
            self.coherence.looked_up(parent_inode, name, ABSENT)
            if not near:
                raise
            return self._absent(near)
        self.coherence.looked_up(parent_inode, name, attrs.number)
        return self._entry(attrs, near)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self.forget_now(inode_list)

    def forget_now(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """The same, outside of a task."""
        self.counters.operations["forget"] += 1
        for number, count in inode_list:
            try:
                gone = self._names.forget(number, count)
                if gone is not None:
                    self.coherence.forgotten(gone)
            except Exception:  # nothing may leave: pyfuse3 catches nothing here
                log.exception("forget: node %d, %d lookups", number, count)

    @answering
    def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        near = self.coherence.names_in(parent_inode)
        attrs = self._names.mknod(parent_inode, name, mode, rdev, self._caller(ctx))
        return self._made(parent_inode, name, attrs, near)

    @answering
    def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext
    ) -> EntryAttributes:
        near = self.coherence.names_in(parent_inode)
        attrs = self._names.mkdir(parent_inode, name, mode, self._caller(ctx))
        return self._made(parent_inode, name, self._watched(attrs, near), near)

    @answering
    def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        near = self.coherence.names_in(parent_inode)
        attrs = self._names.symlink(parent_inode, name, target, self._caller(ctx))
        return self._made(parent_inode, name, attrs, near)

    @answering
    def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        asked = (inode, new_parent_inode, new_name)
        if asked not in self._doubted and self.coherence.may_mean_another_name(inode):
            self._doubted[:] = [*self._doubted[-_MOST_DOUBTED:], asked]
            raise estale()  # the kernel looks both paths up, once, and asks again
        near = self.coherence.names_in(new_parent_inode)
        try:
            attrs = self._names.link(*asked, self._caller(ctx))
        except OSError:
            self._no_more_doubted(asked)
            raise
        self._no_more_doubted(asked)
        return self._made(new_parent_inode, new_name, self._watched(attrs, near), near)

    def _no_more_doubted(self, asked: tuple[int, int, bytes]) -> None:
        with suppress(ValueError):
            self._doubted.remove(asked)

    @answering
    def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        self._names.unlink(parent_inode, name, self._caller(ctx))
        self.coherence.removed(parent_inode, name)

    @answering
    def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        self._names.rmdir(parent_inode, name, self._caller(ctx))
        self.coherence.removed(parent_inode, name)

    @answering
    def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        old, new = (parent_inode_old, name_old), (parent_inode_new, name_new)
        renamed = self._names.rename(*old, *new, flags, self._caller(ctx))
        self.coherence.renamed(old, new, renamed)

    # -- directories ----------------------------------------------------------------------------

    @answering_then(_note_stream)
    def opendir(self, inode: int, ctx: RequestContext) -> int:
        near = self.coherence.names_in(inode)
        handle = self._names.opendir(inode, self._caller(ctx))
        if near == LASTING:
            wire.amend_open(handle, wire.CACHE_DIR | wire.KEEP_CACHE)
        return handle

    @answering_then(_note_crowd)
    def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """Fill one reply. After the first entry an error waits for the next call."""
        filled = False
        near = self.coherence.streamed(fh)
        try:
            for entries in self._listings.entries(fh, start_id):
                validities = self.coherence.validities(entries, near)
                taken = self._tell(token, entries, validities)
                self._listings.settle(entries, taken)
                self.coherence.listed(entries[:taken], validities)
                if taken < len(entries):
                    return
                filled = True
        except (OSError, WouldBlock):
            if not filled:
                raise

    @answering
    def releasedir(self, fh: int) -> None:
        self._release(fh)

    @answering
    def fsyncdir(self, fh: int, datasync: bool) -> None:
        self._consent_to_wait(fh)
        self._data.fsync(fh, datasync)

    # -- attributes -----------------------------------------------------------------------------

    @answering
    def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        near = self.coherence.prepare(inode)
        return self._entry(self._attributes.getattr(inode), near)

    @answering
    def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        changes = self._changes(attr, fields)
        near = self.coherence.prepare(inode)
        self.coherence.set(inode)
        return self._entry(self._attributes.setattr(inode, changes, fh, self._caller(ctx)), near)

    @answering
    def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return self._attributes.readlink(inode)

    @answering
    def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:
        self._attributes.access(inode, mode, self._caller(ctx))
        return True

    @answering
    def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        host = self._attributes.statfs()
        answer = pyfuse3.StatvfsData()
        for field in ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail"):
            setattr(answer, f"f_{field}", getattr(host, f"f_{field}"))
        answer.f_namemax = 255
        return answer

    @answering
    def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        if name == ALIVE:
            raise FUSEError(errno.ENODATA)
        return self._attributes.getxattr(inode, name, self._caller(ctx))

    @answering
    def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        return self._attributes.listxattr(inode, self._caller(ctx))

    @answering
    def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        self._attributes.setxattr(inode, name, value, self._caller(ctx))
        self.coherence.touched(inode)

    @answering
    def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        self._attributes.removexattr(inode, name, self._caller(ctx))
        self.coherence.touched(inode)

    # -- data -----------------------------------------------------------------------------------

    @answering_then(_note_open)
    def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        handle = self._data.open(inode, flags, self._caller(ctx))
        try:
            keeps = self.coherence.opened(handle, flags)
            self._send_past_us(handle)
            self.coherence.opened_to_be_mapped(handle)
        except BaseException:
            self._data.release(handle)
            raise
        return self._opened(handle, keeps=keeps)

    def _send_past_us(self, number: int) -> None:
        """Have the kernel take the data of handle *number*, handed out next, the way it goes."""
        opened = self._overlay.namespace.handles.get(number)
        way = opened.way
        if way is None or not way.backing:
            return
        flags = 0 if opened.passes_us else wire.DIRECT_IO
        if not wire.amend_open(number, flags, way.backing):
            raise OSError(errno.EIO, "the reply to an open could not be amended")
        if way.writers:
            self.coherence.opened_past_us(opened.node)

    @answering_then(_note_created)
    def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        near = self.coherence.names_in(parent_inode)
        created = self._data.create(parent_inode, name, mode, flags, self._caller(ctx))
        self._send_past_us(created.handle)
        made = self._made(parent_inode, name, created.attrs, near)
        self.coherence.opened_to_be_mapped(created.handle)  # it may keep what it is told now
        return self._opened(created.handle, keeps=False), made

    @answering_then(_note_read)
    def read(self, fh: int, off: int, size: int) -> bytes:
        if not self._overlay.namespace.is_patient():
            data = self._data.read_cached(fh, off, size)
            if data is not None:
                return data  # type: ignore[return-value]  # pyfuse3 takes any buffer
            if not self._data.may_block(fh):  # then the host has begun to read it, or to read ahead
                raise WouldBlock(self._device(fh), partial(self._is_cached, fh, off, size))
        self._consent_to_wait(fh)
        return self._data.read(fh, off, size)

    def _is_cached(self, fh: int, off: int, size: int) -> bool:
        try:
            return self._data.read_cached(fh, off, size) is not None
        except OSError:  # which asking once more tells
            return True

    @answering_then(_note_written)
    def write(self, fh: int, off: int, buf: bytes) -> int:
        if self._overlay.namespace.is_patient():
            self.coherence.written(fh)  # before the host tells of it
            return self._data.write(fh, off, buf)
        if wire.clears_set_id():
            self._data.clears_set_id(fh)
        if self._data.may_block(fh) or (self._throttled and self._device(fh) in self._throttled):
            self._consent_to_wait(fh)
        started = time.perf_counter_ns()
        count = self._data.write(fh, off, buf)
        if time.perf_counter_ns() - started > LONG_NS:
            self._throttled.note(self._device(fh))
        return count

    @answering
    def flush(self, fh: int) -> None:
        if not self._flushes:
            raise FUSEError(errno.ENOSYS)  # nothing to report: the kernel stops asking
        self._consent_to_wait(fh)
        self._data.flush(fh)

    @answering
    def fsync(self, fh: int, datasync: bool) -> None:
        self._consent_to_wait(fh)
        self._data.fsync(fh, datasync)

    @answering
    def release(self, fh: int) -> None:
        self._release(fh)

    def _release(self, fh: int) -> None:
        if self._data.may_block(fh):
            self._consent_to_wait(fh)
        self.coherence.released(fh)
        self._data.release(fh)


def _fill(entry: EntryAttributes, number: int, status: HostStat, size: int) -> None:
    """The one place where attributes are copied into the protocol's record."""
    # One unpacking takes a third of the time that asking for each field does.
    _, _, _, _, mode, nlink, uid, gid, rdev, _, blocks, blksize, atime, mtime, ctime = status
    entry.st_ino = number
    entry.st_mode = mode
    entry.st_nlink = nlink
    entry.st_uid = uid
    entry.st_gid = gid
    entry.st_rdev = rdev
    entry.st_size = size
    entry.st_blocks = blocks
    entry.st_blksize = blksize
    entry.st_atime_ns = atime
    entry.st_mtime_ns = mtime
    entry.st_ctime_ns = ctime

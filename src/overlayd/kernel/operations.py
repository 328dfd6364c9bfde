"""The adapter: pyfuse3's requests in, the core's answers out. It decides nothing.

Each handler is answered inline where the core can answer without waiting, and in a worker thread
where a device or server may have to be waited for; threads are rationed by device, so that a stuck
one starves nobody else. `answering` is the only place where errors are converted: pyfuse3 ends the
whole mount for any exception that is not a FUSEError.
"""

import errno
import functools
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from overlayd.core.overlay import Overlay
from overlayd.core.types import Attrs, Changes, WouldBlock
from overlayd.host.credentials import Caller
from overlayd.host.fs import HostStat
from overlayd.kernel import wire
from overlayd.kernel.cache import CachePolicy
from overlayd.kernel.counters import Counters, subject_of
from overlayd.kernel.forgetting import Crowded

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

ErrorStyle = Literal["posix", "wasi"]

ALIVE = b"system.overlayd"
"""An extended attribute that nothing has. The daemon answers for it at once and by itself, and the
kernel always asks, holding no lock that a request which waits for a source may hold too."""

_THREADS_PER_DEVICE = 16
_INLINE_WRITE = 64 * 1024  # bytes; copying as much takes less time than a thread's round trip

_NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT))
_FORGET_TURNS = 20
_FORGET_PAUSE = 0.005  # seconds

# wasmtime turns EROFS into EIO before its guest sees it; EPERM passes through (SPEC.md section 6).
_STYLES: dict[str, dict[int, int]] = {"posix": {}, "wasi": {errno.EROFS: errno.EPERM}}


def answering(handler: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Turn what *handler* raises into a FUSEError: an OSError's errno, EIO for anything else.

    Requests and errors are counted here too.
    """
    operation = handler.__name__
    subject = subject_of(operation)

    @functools.wraps(handler)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        counters: Counters = args[0].counters  # type: ignore[attr-defined]
        try:
            counters.request(operation, subject, args[1])  # type: ignore[arg-type]
            return await handler(*args, **kwargs)
        except FUSEError:
            raise
        except OSError as error:
            style = args[0].error_style  # type: ignore[attr-defined]
            if error.errno is None:
                log.exception("%s: an error without a number", operation)
            number = error.errno or errno.EIO
        except Exception:
            log.exception("%s: unexpected; answered EIO", operation)
            style, number = {}, errno.EIO
        number = style.get(number, number)
        counters.errors[number] += 1
        raise FUSEError(number)

    return wrapper


class Operations(pyfuse3.Operations):
    """One mount's request handlers."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = False

    def __init__(self, overlay: Overlay, cache: CachePolicy, errors: ErrorStyle) -> None:
        super().__init__()
        self.counters = Counters(overlay.namespace)
        self.crowded = Crowded()
        self._overlay = overlay
        self._names = overlay.names
        self._attributes = overlay.attributes
        self._data = overlay.data
        self.configure(cache, errors)
        self._under_way: set[trio.Event] = set()
        self._limiters: dict[int, trio.CapacityLimiter] = {}
        self._flushes = overlay.namespace.has_slow_source

    def configure(self, cache: CachePolicy, errors: ErrorStyle) -> None:
        """Go by these settings from now on."""
        self.error_style = _STYLES[errors]
        self._seconds = cache.seconds
        self._keeps_listings = cache.keeps_listings

    async def drained(self, seconds: float) -> bool:
        """Whether all requests that are in threads now end within *seconds*.

        Those that are answered on the event loop have ended whenever anybody else runs.
        """
        with trio.move_on_after(seconds) as limit:
            for ended in list(self._under_way):
                await ended.wait()
        return not limit.cancelled_caught

    # -- calling the core -----------------------------------------------------------------------

    async def _call(self, function: Callable[..., T], *args: Any) -> T:
        """What *function* answers; asked once more where room on the host was about to come."""
        freed = self._overlay.namespace.cache.freed
        try:
            return await self._ask(function, *args)
        except OSError as error:
            if error.errno not in _NO_ROOM or not await self._room_comes(freed):
                raise
        return await self._ask(function, *args)

    async def _room_comes(self, freed: int) -> bool:
        """Whether anything removed was let go of since *freed* was counted, or is so shortly.

        The kernel says only some requests later that it has done with a file that was removed, and
        until then the host keeps the file. Waited for in turns of the event loop, each of which
        reads what the kernel has queued; what stays for so long is kept by a guest.
        """
        cache = self._overlay.namespace.cache
        expected = cache.lingering()
        for _ in range(_FORGET_TURNS):
            if not expected & cache.lingering():
                break
            await trio.sleep(_FORGET_PAUSE)
        else:
            cache.stop_expecting(expected)
        return cache.freed != freed

    async def _ask(self, function: Callable[..., T], *args: Any) -> T:
        """Call *function* here if it need not wait, else in a thread that may."""
        try:
            return function(*args)
        except WouldBlock as wait:
            device = wait.device
        return await self._in_thread(device, function, *args)

    async def _in_thread(self, device: int, function: Callable[..., T], *args: Any) -> T:
        limiter = self._limiters.get(device)
        if limiter is None:
            limiter = self._limiters[device] = trio.CapacityLimiter(_THREADS_PER_DEVICE)
        ended = trio.Event()
        self._under_way.add(ended)
        try:
            return await trio.to_thread.run_sync(
                self._patiently, function, args, abandon_on_cancel=True, limiter=limiter
            )
        finally:
            self._under_way.discard(ended)
            ended.set()

    def _patiently(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        with self._overlay.namespace.patience():
            return function(*args)

    def _device(self, handle: int) -> int:
        return self._overlay.namespace.handles.get(handle).device

    # -- answers --------------------------------------------------------------------------------

    def _entry(self, attrs: Attrs) -> EntryAttributes:
        seconds = 0.0 if attrs.volatile else self._seconds
        entry = EntryAttributes()
        entry.entry_timeout = seconds
        entry.attr_timeout = seconds
        _fill(entry, attrs.number, attrs.stat, attrs.size)
        return entry

    def _absent(self) -> EntryAttributes:
        """Tell the kernel to remember that a name does not exist."""
        entry = EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(0)
        entry.entry_timeout = self._seconds
        return entry

    # -- names ----------------------------------------------------------------------------------

    @answering
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        try:
            entry = self._entry(await self._call(self._names.lookup, parent_inode, name))
            self.crowded.note(len(self._overlay.namespace.nodes))
            return entry
        except FileNotFoundError:
            if self._seconds and not self._overlay.namespace.is_shared(parent_inode):
                return self._absent()
            raise

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        self.counters.operations["forget"] += 1
        for number, count in inode_list:
            try:
                self._names.forget(number, count)
            except Exception:  # nothing may leave: pyfuse3 catches nothing here
                log.exception("forget: node %d, %d lookups", number, count)

    @answering
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: RequestContext
    ) -> EntryAttributes:
        made = await self._call(self._names.mknod, parent_inode, name, mode, rdev, _caller(ctx))
        return self._entry(made)

    @answering
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: RequestContext
    ) -> EntryAttributes:
        return self._entry(
            await self._call(self._names.mkdir, parent_inode, name, mode, _caller(ctx))
        )

    @answering
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        return self._entry(
            await self._call(self._names.symlink, parent_inode, name, target, _caller(ctx))
        )

    @answering
    async def link(
        self, inode: int, new_parent_inode: int, new_name: bytes, ctx: RequestContext
    ) -> EntryAttributes:
        return self._entry(
            await self._call(self._names.link, inode, new_parent_inode, new_name, _caller(ctx))
        )

    @answering
    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._call(self._names.unlink, parent_inode, name, _caller(ctx))

    @answering
    async def rmdir(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._call(self._names.rmdir, parent_inode, name, _caller(ctx))

    @answering
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: RequestContext,
    ) -> None:
        await self._call(
            self._names.rename,
            *(parent_inode_old, name_old, parent_inode_new, name_new),
            flags,
            _caller(ctx),
        )

    # -- directories ----------------------------------------------------------------------------

    @answering
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        handle = await self._call(self._names.opendir, inode, _caller(ctx))
        self.counters.opened(handle)
        if self._keeps_listings:
            wire.amend_open(handle, wire.CACHE_DIR | wire.KEEP_CACHE)
        return handle

    @answering
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        await self._call(self._list, fh, start_id, token)
        self.crowded.note(len(self._overlay.namespace.nodes))

    def _list(self, fh: int, start: int, token: pyfuse3.ReaddirToken) -> None:
        """Fill one reply. After the first entry an error waits for the next call."""
        filled = False
        try:
            for entry in self._names.entries(fh, start):
                if not pyfuse3.readdir_reply(
                    token, entry.name, self._entry(entry.attrs), entry.cookie
                ):
                    self._names.refuse(entry)
                    return
                self._names.accept(entry)
                filled = True
        except (OSError, WouldBlock):
            if not filled:
                raise

    @answering
    async def releasedir(self, fh: int) -> None:
        await self._release(fh)

    @answering
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        await self._in_thread(self._device(fh), self._data.fsync, fh, datasync)

    # -- attributes -----------------------------------------------------------------------------

    @answering
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        return self._entry(await self._call(self._attributes.getattr, inode))

    @answering
    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        changes = Changes(
            mode=attr.st_mode if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            size=attr.st_size if fields.update_size else None,
            atime_ns=attr.st_atime_ns if fields.update_atime else None,
            mtime_ns=attr.st_mtime_ns if fields.update_mtime else None,
        )
        return self._entry(
            await self._call(self._attributes.setattr, inode, changes, fh, _caller(ctx))
        )

    @answering
    async def readlink(self, inode: int, ctx: RequestContext) -> bytes:
        return await self._call(self._attributes.readlink, inode)

    @answering
    async def access(self, inode: int, mode: int, ctx: RequestContext) -> bool:
        await self._call(self._attributes.access, inode, mode, _caller(ctx))
        return True

    @answering
    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        host = await self._call(self._attributes.statfs)
        answer = pyfuse3.StatvfsData()
        for field in ("bsize", "frsize", "blocks", "bfree", "bavail", "files", "ffree", "favail"):
            setattr(answer, f"f_{field}", getattr(host, f"f_{field}"))
        answer.f_namemax = 255
        return answer

    @answering
    async def getxattr(self, inode: int, name: bytes, ctx: RequestContext) -> bytes:
        if name == ALIVE:
            raise FUSEError(errno.ENODATA)
        return await self._call(self._attributes.getxattr, inode, name, _caller(ctx))

    @answering
    async def listxattr(self, inode: int, ctx: RequestContext) -> Sequence[bytes]:
        return await self._call(self._attributes.listxattr, inode, _caller(ctx))

    @answering
    async def setxattr(self, inode: int, name: bytes, value: bytes, ctx: RequestContext) -> None:
        await self._call(self._attributes.setxattr, inode, name, value, _caller(ctx))

    @answering
    async def removexattr(self, inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._call(self._attributes.removexattr, inode, name, _caller(ctx))

    # -- data -----------------------------------------------------------------------------------

    @answering
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        handle = await self._call(self._data.open, inode, flags, _caller(ctx))
        self.counters.opened(handle)
        return FileInfo(fh=pyfuse3.FileHandleT(handle), keep_cache=False)

    @answering
    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        created = await self._call(self._data.create, parent_inode, name, mode, flags, _caller(ctx))
        self.counters.opened(created.handle)
        info = FileInfo(fh=pyfuse3.FileHandleT(created.handle), keep_cache=False)
        return info, self._entry(created.attrs)

    @answering
    async def read(self, fh: int, off: int, size: int) -> bytes:
        data = self._data.read_cached(fh, off, size)
        if data is None:
            data = await self._in_thread(self._device(fh), self._data.read, fh, off, size)
        self.counters.read(fh, len(data))
        return data

    @answering
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        count = await self._call(self._write, fh, off, buf)
        self.counters.written(fh, count)
        return count

    def _write(self, fh: int, off: int, buf: bytes) -> int:
        if len(buf) > _INLINE_WRITE or self._data.may_block(fh):
            self._overlay.namespace.consent_to_wait(self._device(fh))
        return self._data.write(fh, off, buf)

    @answering
    async def flush(self, fh: int) -> None:
        if not self._flushes:
            raise FUSEError(errno.ENOSYS)  # nothing to report: the kernel stops asking
        await self._in_thread(self._device(fh), self._data.flush, fh)

    @answering
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._in_thread(self._device(fh), self._data.fsync, fh, datasync)

    @answering
    async def release(self, fh: int) -> None:
        await self._release(fh)

    async def _release(self, fh: int) -> None:
        if self._data.may_block(fh):
            await self._in_thread(self._device(fh), self._data.release, fh)
        else:
            self._data.release(fh)


def _caller(ctx: RequestContext) -> Caller:
    return Caller(ctx.uid, ctx.gid, ctx.pid)


def _fill(entry: EntryAttributes, number: int, status: HostStat, size: int) -> None:
    """The one place where attributes are copied into the protocol's record."""
    entry.st_ino = pyfuse3.InodeT(number)
    entry.st_mode = pyfuse3.ModeT(status.mode)
    entry.st_nlink = status.nlink
    entry.st_uid = status.uid
    entry.st_gid = status.gid
    entry.st_rdev = status.rdev
    entry.st_size = size
    entry.st_blocks = status.blocks
    entry.st_blksize = status.blksize
    entry.st_atime_ns = status.atime_ns
    entry.st_mtime_ns = status.mtime_ns
    entry.st_ctime_ns = status.ctime_ns

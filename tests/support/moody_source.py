"""A file system that answers late, or fails, as it is told: a source for tests of overlayd.

Run as `moody_source.py MOUNT_POINT DIRECTORY`; in a test, `moody_source(...)`. It holds files in
memory, in one directory. `DIRECTORY/orders` says for each request, by name or `*` for all, how many
seconds it takes and with which errno it then fails; `DIRECTORY/record` lists the requests answered.
"""

from __future__ import annotations

import errno
import json
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from support.mounting import detach, is_mounted
from support.processes import wait_until

_ROOT = 1
_TURN_SECONDS = 0.01


class _File:
    def __init__(self, name: bytes, mode: int) -> None:
        self.name: bytes | None = name
        self.mode = mode
        self.data = bytearray()


class _Moody(pyfuse3.Operations):
    """One directory of files; every handler waits and fails as ordered."""

    enable_writeback_cache = False

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._orders = directory / "orders"
        self._record = open(directory / "record", "w", buffering=1)  # noqa: SIM115
        self._files: dict[int, _File] = {}

    async def _obey(self, request: str) -> None:
        """Wait as long as the orders of this moment say, fail if they do, and record it."""
        begun = time.monotonic()
        while True:
            delays, errors = json.loads(self._orders.read_text())
            seconds = delays.get(request, delays.get("*", 0))
            if time.monotonic() - begun >= seconds:
                break
            await trio.sleep(_TURN_SECONDS)
        number = errors.get(request, 0)
        self._record.write(f"{request} {errno.errorcode[number] if number else 'ok'}\n")
        if number:
            raise FUSEError(number)

    def _entry(self, inode: int) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = pyfuse3.InodeT(inode)
        entry.entry_timeout = entry.attr_timeout = 0.0
        if inode == _ROOT:
            entry.st_mode, entry.st_nlink = pyfuse3.ModeT(stat.S_IFDIR | 0o755), 2
        else:
            file = self._files[inode]
            entry.st_mode = pyfuse3.ModeT(stat.S_IFREG | file.mode)
            entry.st_nlink, entry.st_size = int(file.name is not None), len(file.data)
        return entry

    def _find(self, name: bytes) -> int:
        for inode, file in self._files.items():
            if file.name == name:
                return inode
        raise FUSEError(errno.ENOENT)

    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        await self._obey("lookup")
        return self._entry(self._find(name))

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        await self._obey("getattr")
        return self._entry(inode)

    async def setattr(
        self,
        inode: int,
        attr: EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: RequestContext,
    ) -> EntryAttributes:
        await self._obey("setattr")
        if fields.update_size:
            data = self._files[inode].data
            del data[attr.st_size :]
            data.extend(bytes(attr.st_size - len(data)))
        return self._entry(inode)

    async def statfs(self, ctx: RequestContext) -> pyfuse3.StatvfsData:
        await self._obey("statfs")
        return pyfuse3.StatvfsData()

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        await self._obey("create")
        inode = max(self._files, default=_ROOT) + 1
        self._files[inode] = _File(name, stat.S_IMODE(mode))
        return FileInfo(fh=pyfuse3.FileHandleT(inode)), self._entry(inode)

    async def unlink(self, parent_inode: int, name: bytes, ctx: RequestContext) -> None:
        await self._obey("unlink")
        self._files[self._find(name)].name = None

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        await self._obey("open")
        return FileInfo(fh=pyfuse3.FileHandleT(inode))

    async def read(self, fh: int, off: int, size: int) -> bytes:
        await self._obey("read")
        return bytes(self._files[fh].data[off : off + size])

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        await self._obey("write")
        data = self._files[fh].data
        data.extend(bytes(max(0, off - len(data))))
        data[off : off + len(buf)] = buf
        return len(buf)

    async def flush(self, fh: int) -> None:
        await self._obey("flush")

    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._obey("fdatasync" if datasync else "fsync")

    async def release(self, fh: int) -> None:
        await self._obey("release")

    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        await self._obey("opendir")
        return inode

    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        await self._obey("readdir")
        named = [(inode, file.name) for inode, file in self._files.items() if file.name]
        for cookie, (inode, name) in enumerate(named):
            if cookie >= start_id and not pyfuse3.readdir_reply(
                token, name, self._entry(inode), cookie + 1
            ):
                return


class MoodySource:
    """The test's end of a moody file system that is mounted at PATH."""

    def __init__(self, path: Path, directory: Path) -> None:
        self.path = path
        self._directory = directory

    def order(
        self, delays: Mapping[str, float] | None = None, errors: Mapping[str, int] | None = None
    ) -> None:
        """From now on, and for what is waiting: delays and errors by request. None: none."""
        orders = self._directory / "orders.new"
        orders.write_text(json.dumps((delays or {}, errors or {})))
        orders.rename(self._directory / "orders")

    def requests(self) -> Sequence[str]:
        """What was answered so far: the request and `ok` or the errno."""
        return (self._directory / "record").read_text().splitlines()


@contextmanager
def moody_source(place: Path) -> Iterator[MoodySource]:
    """A moody file system on PLACE, which is made; it begins in the best of moods."""
    directory = place.with_name(f"{place.name}.moods")
    place.mkdir()
    directory.mkdir()
    source = MoodySource(place, directory)
    source.order()
    process = subprocess.Popen(
        [sys.executable, "-m", "support.moody_source", str(place), str(directory)],
        cwd=Path(__file__).resolve().parents[1],
    )
    try:
        assert wait_until(lambda: is_mounted(place) or process.poll() is not None)
        assert process.poll() is None
        yield source
    finally:
        source.order()
        detach(place)
        process.kill()
        process.wait()


def main() -> None:
    place, directory = sys.argv[1:3]
    pyfuse3.init(_Moody(Path(directory)), place, {"fsname=moody"})
    trio.run(pyfuse3.main)


if __name__ == "__main__":
    main()

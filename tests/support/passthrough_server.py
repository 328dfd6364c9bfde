"""A mount with one file, `file`, that the kernel reads and writes past us: it asks us for nothing.

Started with the mount point, the host file, and the descriptor to write to once it is mounted.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

from overlayd.kernel import wire

# isort: split
import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

from overlayd.host.backing import close_backing, open_backing

FILE = 2


class OneFile(pyfuse3.Operations):
    """Reads and writes fail unless they pass us by."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.backing = 0

    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        entry = EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = stat.S_IFDIR | 0o755 if inode == pyfuse3.ROOT_INODE else 0o100600
        entry.st_size = os.stat(self.path).st_size
        return entry

    async def lookup(self, parent: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        if name != b"file":
            raise FUSEError(errno.ENOENT)
        return await self.getattr(FILE, ctx)

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        state = wire.state()
        if not state.granted & wire.PASSTHROUGH:
            raise FUSEError(errno.EOPNOTSUPP)
        fd = os.open(self.path, os.O_RDWR)
        self.backing = open_backing(state.session, fd)
        os.close(fd)
        if not wire.amend_open(17, 0, self.backing):
            raise FUSEError(errno.EPROTO)
        return FileInfo(fh=17)

    async def release(self, fh: int) -> None:
        close_backing(wire.state().session, self.backing)
        try:
            close_backing(wire.state().session, self.backing)
        except FileNotFoundError:
            self.backing = 0


def main() -> None:
    target, path, ready = sys.argv[1:]
    wire.want(passthrough=True)
    pyfuse3.init(OneFile(path), target, {"fsname=passthrough-test"})
    os.write(int(ready), b"x")
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main()

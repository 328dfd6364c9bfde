"""A session over a socket instead of /dev/fuse: pyfuse3 and libfuse for real, no mount.

Started by `support.wire_client` with the socket's descriptor, the INIT flags to want and the stack
depth. What the handlers answer is fixed, so that replies can be compared byte for byte.
"""

from __future__ import annotations

import sys

from overlayd.kernel import wire

# isort: split
import pyfuse3
import trio
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext

PLAIN, LISTED, KEPT, BACKED, FAILING, HELD = 2, 3, 4, 5, 6, 1000
"""Inodes: opened as they are, amended, with a backing file, refused; from 1000 on answered late."""


class Answers(pyfuse3.Operations):
    """Handles are ten times the inode."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[trio.Event] = []

    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        if inode >= HELD:
            self.held.append(trio.Event())
            await self.held[-1].wait()
        if inode != PLAIN:
            wire.amend_open(inode * 10, wire.CACHE_DIR | wire.KEEP_CACHE)
        if inode == FAILING:
            raise FUSEError(13)
        return inode * 10

    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        if inode != PLAIN:
            wire.amend_open(inode * 10, wire.KEEP_CACHE, 77 if inode == BACKED else 0)
        return FileInfo(fh=inode * 10, keep_cache=inode == BACKED)

    async def create(
        self, parent_inode: int, name: bytes, mode: int, flags: int, ctx: RequestContext
    ) -> tuple[FileInfo, EntryAttributes]:
        entry = EntryAttributes()
        entry.st_ino = 7
        if parent_inode != PLAIN:
            wire.amend_open(70, wire.KEEP_CACHE)
        return FileInfo(fh=70, keep_cache=False), entry

    async def read(self, fh: int, off: int, size: int) -> bytes:
        """What looks exactly like a reply to open."""
        wire.amend_open(fh, wire.KEEP_CACHE)
        return fh.to_bytes(8, "little") + bytes(8)

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Lets go of what is held, neither the first nor the last first."""
        while self.held:
            self.held.pop(len(self.held) // 3).set()
            await trio.sleep(0)


def main() -> None:
    descriptor, flags, depth = sys.argv[1:]
    if wire._extension is not None and int(flags):
        wire._extension.want(int(flags), int(depth))
    pyfuse3.init(Answers(), f"/dev/fd/{descriptor}", set())
    trio.run(pyfuse3.main, 1, 600)


if __name__ == "__main__":
    main()

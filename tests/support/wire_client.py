"""The kernel's side of `support.wire_server`: requests as bytes, replies as bytes."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

LOOKUP, OPEN, READ, INIT, OPENDIR, FSYNCDIR, CREATE = 1, 14, 15, 26, 27, 30, 35
INIT_EXT = 1 << 30
_SECONDS = 20
_SO_SNDBUFFORCE = 32


class Reply(NamedTuple):
    """One reply, or a notification, whose `unique` is 0."""

    unique: int
    error: int
    body: bytes

    @property
    def opened(self) -> tuple[int, int, int]:
        """Handle, flags and backing file of a reply that hands a handle out."""
        handle, flags, backing = struct.unpack("<QIi", self.body[-16:])
        return handle, flags, backing

    @property
    def granted(self) -> tuple[int, int]:
        """Flags and stack depth of a reply to INIT."""
        low, high, depth = *struct.unpack_from("<I", self.body, 12), 0, 0
        if len(self.body) >= 40:
            high, depth = struct.unpack_from("<II", self.body, 32)
        return low | high << 32, depth


class Kernel:
    """One end of the pair."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._unique = 0

    def send(self, opcode: int, node: int, body: bytes = b"") -> int:
        """One request; its `unique`."""
        self._unique += 2
        header = struct.pack("<IIQQIIIHH", 40 + len(body), opcode, self._unique, node, *[0] * 5)
        self._end.send(header + body)
        return self._unique

    def reply(self) -> Reply:
        """The next reply, whichever it is for."""
        data = self._end.recv(1 << 21)
        length, error, unique = struct.unpack_from("<IiQ", data)
        assert length == len(data)
        return Reply(unique, error, data[16:])

    def ask(self, opcode: int, node: int, body: bytes = b"") -> Reply:
        """One request and its reply."""
        unique = self.send(opcode, node, body)
        reply = self.reply()
        assert reply.unique == unique
        return reply

    def init(self, flags: int, minor: int = 45) -> Reply:
        """The first request of a session, as a kernel with these FLAGS sends it."""
        words = (7, minor, 1 << 17, flags & 0xFFFFFFFF, flags >> 32)
        return self.ask(INIT, 0, struct.pack("<5I", *words) + bytes(44))


def session(wire: bool = True, flags: int = 0, depth: int = 0) -> AbstractContextManager[Kernel]:
    """A server, with the extension or without, that wants FLAGS (0: as usual)."""
    return _served("wire_server", wire, str(flags), str(depth))


def handlers(source: Path, *, directly: bool) -> AbstractContextManager[Kernel]:
    """A daemon's handlers on SOURCE, which answer past libfuse and pyfuse3 if DIRECTLY."""
    return _served("direct_server", True, str(source), "yes" if directly else "no")


@contextmanager
def _served(module: str, wire: bool, *arguments: str) -> Iterator[Kernel]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        # As a device does, it is to take every reply at once.
        end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 1 << 26)
    ours.settimeout(_SECONDS)
    number = theirs.fileno()
    words = (sys.executable, "-m", f"support.{module}", str(number), *arguments)
    environment = os.environ | {
        "OVERLAYD_WIRE": "on" if wire else "off",
        "PYTHONHASHSEED": "0",  # places in listings depend on it
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    server = subprocess.Popen(words, pass_fds=[number], env=environment)
    theirs.close()
    try:
        with ours:
            yield Kernel(ours)
            assert server.poll() is None, "the server died"
            server.kill()
    finally:
        server.kill()
        server.wait()

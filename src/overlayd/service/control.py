"""The control socket: what other processes ask a running daemon, answered in its own loop.

It lies in the runtime directory beside the record of the mount, is open to its owner alone, and
serves root and the daemon's own user. Every client is done with after one request, within a time
limit, and there are never more than a few at once: the others wait in the kernel's queue. Nothing
that a client does or leaves undone gets past `Control`; an exception out of it would end the mount.
"""

import errno
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import trio

from overlayd.errors import OverlaydError
from overlayd.service.protocol import (
    MAX_REQUEST,
    VERSION,
    Message,
    decode,
    encode,
    failure,
    success,
)
from overlayd.service.registry import socket_of
from overlayd.table.guest_path import printable

log = logging.getLogger(__name__)

Verb: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[object]]
"""Takes a request with all its fields; what it returns must fit JSON. It may raise OverlaydError,
whose line is the answer, and must not block the loop."""

_CLIENTS = 16
_BACKLOG = 64
_TRANSFER_SECONDS = 5.0
_PAUSE_SECONDS = 0.1
_PIECE = 65536
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


def open_socket(record: Path) -> socket.socket:
    """Listen on the socket that belongs to *record*, which is this daemon's own.

    Raises OverlaydError where the runtime directory cannot hold one.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    path = socket_of(record)
    unfinished = f"{os.getpid()}.sock.new"
    try:
        os.fchmod(listener.fileno(), 0o600)  # before it has a name: there is no umask to rely on
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # By descriptor: sun_path takes 108 bytes, a runtime directory may have more.
            listener.bind(f"/proc/self/fd/{directory}/{unfinished}")
            listener.listen(_BACKLOG)
            # Not bound in place: a killed daemon that had this device number left its own.
            os.rename(unfinished, path.name, src_dir_fd=directory, dst_dir_fd=directory)
        finally:
            os.close(directory)
    except OSError as error:
        listener.close()
        raise OverlaydError(
            f"control socket {printable(str(path))}: {(error.strerror or str(error)).lower()};"
            " set OVERLAYD_RUNTIME_DIR to a directory of your own that can hold sockets"
        ) from None
    return listener


class Control:
    """Answers the clients of one daemon; `verbs` may be added to before it serves."""

    def __init__(self, relieve: Callable[[], object] = lambda: None) -> None:
        """*relieve* is called when descriptors are short, to give some back."""
        self.verbs: dict[str, Verb] = {}
        self._relieve = relieve
        self._slots = trio.Semaphore(_CLIENTS)

    async def serve(self, listener: socket.socket) -> None:
        """Answer clients until cancelled."""
        with trio.socket.from_stdlib_socket(listener) as listening:
            async with trio.open_nursery() as nursery:
                while True:
                    await self._slots.acquire()
                    client = await self._accept(listening)
                    nursery.start_soon(self._attend, client)

    async def _accept(self, listening: trio.socket.SocketType) -> trio.socket.SocketType:
        complained = False
        while True:
            try:
                return (await listening.accept())[0]
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                if not complained:
                    log.warning("control socket: %s", (error.strerror or str(error)).lower())
                complained = True
                self._relieve()
                await trio.sleep(_PAUSE_SECONDS)

    async def _attend(self, client: trio.socket.SocketType) -> None:
        try:
            with client:
                if _is_trusted(client):
                    await self._converse(client)
        except OSError:
            pass  # it has gone
        except Exception:
            log.exception("control socket: unexpected")
        finally:
            self._slots.release()

    async def _converse(self, client: trio.socket.SocketType) -> None:
        line = None
        with trio.move_on_after(_TRANSFER_SECONDS):
            line = await _read_line(client)
        if line is None:
            answer = _refusal(f"no request came within {_TRANSFER_SECONDS:g} s")
        elif not line:
            return
        else:
            answer = await self._answer(line)
        rest = memoryview(answer)
        with trio.move_on_after(_TRANSFER_SECONDS):
            while rest:
                rest = rest[await client.send(rest[:_PIECE]) :]

    async def _answer(self, line: bytes) -> bytes:
        if not line.endswith(b"\n"):
            return _refusal(f"a request is one line of at most {MAX_REQUEST} bytes")
        try:
            request = decode(line)
        except ValueError:
            return _refusal("a request is one line that holds one JSON object")
        if request.get("version") != VERSION:
            return _refusal(
                f"this daemon speaks version {VERSION} of the control protocol;"
                " use the overlayd that made the mount, or mount again"
            )
        return await self._call(request)

    async def _call(self, request: Message) -> bytes:
        name = request.get("verb")
        verb = self.verbs.get(name) if isinstance(name, str) else None
        if verb is None:
            known = ", ".join(sorted(self.verbs))
            return _refusal(
                f"{printable(str(name)[:80])}: unknown verb; this daemon knows {known}"
                " (a newer overlayd needs a newer daemon: mount again)"
            )
        try:
            return encode(success(await verb(request)))
        except OverlaydError as error:
            return _refusal(str(error), error.exit_code)
        except Exception as error:
            log.exception("control socket: %s failed", name)
            return _refusal(f"{name}: unexpected {type(error).__name__}; see the daemon's log")


def _refusal(error: str, exit_code: int = 1) -> bytes:
    return encode(failure(error, exit_code))


def _is_trusted(client: trio.socket.SocketType) -> bool:
    """Whether root or the daemon's own user is at the other end (SO_PEERCRED, unix(7))."""
    raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    if uid in (0, os.geteuid()):
        return True
    log.warning("control socket: refused uid %d (pid %d)", uid, pid)
    return False


async def _read_line(client: trio.socket.SocketType) -> bytes:
    """Everything up to the first newline, the end, or a byte more than may be sent."""
    line = bytearray()
    while b"\n" not in line[-_PIECE:] and len(line) < MAX_REQUEST:
        piece = await client.recv(min(_PIECE, MAX_REQUEST - len(line)))
        if not piece:
            break
        line += piece
    return bytes(line).partition(b"\n")[0] + b"\n" if b"\n" in line else bytes(line)

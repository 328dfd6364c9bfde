"""Asking a running daemon over its control socket; for commands, so it loads no event loop."""

import errno
import os
import socket
import time
from pathlib import Path
from typing import Any

from overlayd.errors import OverlaydError
from overlayd.service.protocol import MAX_ANSWER, VERSION, Message, decode, encode
from overlayd.service.registry import Record, is_served, record_path, socket_of
from overlayd.table.guest_path import printable

_RETRY_SECONDS = 0.02
_NO_DAEMON = (
    "no daemon of this user answers for it; mount it (again), or set OVERLAYD_RUNTIME_DIR"
    " as it was for overlayd mount"
)


class Unanswered(OverlaydError):
    """There is no daemon, or it gave no answer that could be understood."""


def ask(
    mount: int | Record,
    verb: str,
    timeout: float = 5.0,
    target: str = "the mount",
    **fields: object,
) -> Any:
    """What the daemon of *mount* (its record, or its device number) answers to *verb*.

    Where it is a device number, *target* is what the mount is called in errors.

    Waits *timeout* seconds at most. Raises Unanswered where no answer is to be had, and what the
    daemon complained of as OverlaydError with its exit status; both lines name the mount.
    """
    device, name = (mount, target) if isinstance(mount, int) else (mount.device, mount.target)
    name = printable(name)
    deadline = time.monotonic() + timeout
    try:
        line = _exchange(
            record_path(device), encode({"version": VERSION, "verb": verb, **fields}), deadline
        )
    except TimeoutError:
        raise Unanswered(
            f"{name}: its daemon did not answer within {timeout:g} s; see its log,"
            " and overlayd health for whether it serves"
        ) from None
    except PermissionError:
        raise Unanswered(f"{name}: only root and the user who mounted it may ask") from None
    except OSError as error:
        raise Unanswered(f"{name}: {_words(error)}") from None
    return _understood(line, name, device)


def _words(error: OSError) -> str:
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return _NO_DAEMON
    return f"its daemon cannot be asked: {(error.strerror or str(error)).lower()}; see its log"


def _exchange(record: Path, request: bytes, deadline: float) -> bytes:
    """Send *request*, and return all that comes back. Raises OSError, TimeoutError."""
    with _connected(record, deadline) as daemon:
        # A daemon that refuses may answer and close before it has read everything.
        try:
            daemon.settimeout(_left(deadline))
            daemon.sendall(request)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = bytearray()
        while len(answer) <= MAX_ANSWER and not answer.endswith(b"\n"):
            daemon.settimeout(_left(deadline))
            try:
                piece = daemon.recv(1 << 20)
            except ConnectionResetError:
                break
            if not piece:
                break
            answer += piece
        return bytes(answer)


def _connected(record: Path, deadline: float) -> socket.socket:
    """A connection; a daemon that has just begun or ended is waited for, as long as it lives."""
    while True:
        try:
            return _connect(socket_of(record), deadline)
        except (FileNotFoundError, ConnectionRefusedError):
            if not is_served(record):
                raise
        except BlockingIOError:  # its queue is full
            pass
        time.sleep(min(_RETRY_SECONDS, _left(deadline)))


def _connect(path: Path, deadline: float) -> socket.socket:
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(_left(deadline))
        # By descriptor: sun_path takes 108 bytes, a runtime directory may have more.
        connection.connect(f"/proc/self/fd/{directory}/{path.name}")
    except BaseException:
        connection.close()
        raise
    finally:
        os.close(directory)
    return connection


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _understood(line: bytes, name: str, device: int) -> Any:
    if not line:
        time.sleep(_RETRY_SECONDS)  # one that is being killed closes its files one by one
        if not is_served(record_path(device)):
            raise Unanswered(f"{name}: {_NO_DAEMON}")
    try:
        answer: Message = decode(line)
    except ValueError:
        what = "closed the connection without an answer" if not line else "answered no JSON"
        raise Unanswered(f"{name}: its daemon {what}; see its log") from None
    if answer.get("version") != VERSION:
        raise Unanswered(
            f"{name}: its daemon speaks version {printable(str(answer.get('version'))[:20])} of the"
            f" control protocol, this overlayd {VERSION}; use the overlayd that made the mount,"
            " or mount again"
        )
    if answer.get("ok") is not True:
        error = OverlaydError(f"{name}: {printable(str(answer.get('error')))}")
        code = answer.get("exit_code")
        error.exit_code = code if code in (1, 2) else 1
        raise error
    return answer.get("answer")

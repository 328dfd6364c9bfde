"""Asks a mount whether its daemon answers, from a process beside that daemon.

Who waits for a request that the daemon has read cannot be killed before it is answered. A thread of
the daemon itself that waits so would keep the process, and /dev/fuse open with it, for ever, once
the daemon is killed: nobody is left to answer (fs/fuse/dev.c, request_wait_answer). Who waits in
another process is told as soon as the daemon is gone.
"""

import errno
import os
import signal
import socket
import struct
import time
from contextlib import suppress
from types import TracebackType
from typing import NoReturn

from overlayd.kernel.operations import ALIVE

_ANSWER = struct.Struct("=i")
_TURNS, _TURN_SECONDS = 20, 0.005
_MOST_DESCRIPTORS = (1 << 31) - 1


class Prober:
    """The other process, and the way to have it ask; it ends with this one, or with the block."""

    def __init__(self, target: str) -> None:
        """Raise OSError where there can be no more processes."""
        path = os.path.abspath(target)
        self._wire, wire = socket.socketpair()
        self._process = os.fork()
        if self._process == 0:
            _answer_on(wire.fileno(), path)
        wire.close()

    def __enter__(self) -> "Prober":
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Let the process end, and whoever waits for its answer in a thread hear of nothing.

        It ends at once, unless it waits for an answer itself: then it is left behind.
        """
        with suppress(OSError):  # it has ended already
            self._wire.shutdown(socket.SHUT_RDWR)
        self._wire.close()
        for _ in range(_TURNS):
            if os.waitpid(self._process, os.WNOHANG)[0]:
                break
            time.sleep(_TURN_SECONDS)

    def ask(self) -> int:
        """The errno of one request, 0 for none: ENODATA if the daemon answers.

        Returns when it does. Raises OSError where the process is gone.
        """
        self._wire.sendall(b"?")
        answer = self._wire.recv(_ANSWER.size)
        if len(answer) < _ANSWER.size:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        number: int = _ANSWER.unpack(answer)[0]
        return number


def _answer_on(wire: int, target: str) -> NoReturn:
    """Serve the daemon at the other end of *wire* until it hangs up."""
    try:
        # Whatever of the daemon's is open must not be kept open here, /dev/fuse above all.
        os.closerange(0, wire)
        os.closerange(wire + 1, _MOST_DESCRIPTORS)
        os.chdir("/")
        # It ends with the daemon, not with what the daemon is told to end by.
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        while os.read(wire, 1):
            os.write(wire, _ANSWER.pack(_ask(target)))
    finally:
        os._exit(0)


def _ask(target: str) -> int:
    """`health` asks for a name, as guests do; that would wait along with whatever else is looked up
    in the same directory, and one source that hangs is no reason to take the others away as well.
    """
    try:
        os.getxattr(target, ALIVE)
    except OSError as error:
        return error.errno or 0
    return 0

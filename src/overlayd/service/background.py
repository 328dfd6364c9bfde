"""A daemon of its own: forked off early, and answered for only when the namespace is live.

What serving takes is slow to import, and most of it is of no use to the command. So the daemon is
forked before the command line is read, and imports while that is done: a mount is there sooner,
and its daemon does not carry what only command lines need. It gets the plan by a socket.
"""

import importlib
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from overlayd.errors import OverlaydError

TYPE_CHECKING = False  # as in typing, which takes time
if TYPE_CHECKING:
    from typing import NoReturn

    from overlayd.service.plan import MountPlan

READY = b"ready"

_NEEDED_BY_BOTH = tuple(
    f"overlayd.{name}"
    for name in ("service.handover", "service.logs", "service.target", "host.locations")
)
"""With all that these import."""

_early: "list[Daemon]" = []
"""The daemon that was forked before anybody knew what it is to serve."""


def load_for_both() -> None:
    """Import what the two processes share, before they part."""
    for name in _NEEDED_BY_BOTH:
        importlib.import_module(name)


@contextmanager
def early_daemon() -> Iterator[None]:
    """Have the first `start_daemon` of the block find a daemon that is already on its way."""
    load_for_both()
    with suppress(OSError):  # no process to be had: `start_daemon` says so, if it comes to that
        _early.append(Daemon())
    try:
        yield
    finally:
        dismiss_early_daemon()


def dismiss_early_daemon() -> None:
    """End it, if there is one that nobody has started."""
    while _early:
        _early.pop().dismiss()


def start_daemon(
    plan: "MountPlan", set_up_logging: Callable[[], None], *, lifeline: bool = False
) -> int | None:
    """Mount *plan* in a daemon and return once it is live; *set_up_logging* must fit a pickle.

    With *lifeline*, the daemon unmounts when the returned descriptor is closed, which the end of
    this process does too. Raises OverlaydError with the daemon's own words where it failed.
    """
    daemon = _early.pop() if _early else Daemon()
    life_end, life = os.pipe() if lifeline else (None, None)
    answer = daemon.start(plan, set_up_logging, life_end)
    if answer != READY:
        words = answer.decode(errors="surrogateescape")
        raise OverlaydError(words or "the daemon died while it was starting; see its log")
    return life


class Daemon:
    """A process of its own that gets ready to serve, and waits to be told what."""

    def __init__(self) -> None:
        self._wire, wire = socket.socketpair()
        first = os.fork()
        if first == 0:
            self._wire.close()
            _become_daemon(wire)
        wire.close()
        os.waitpid(first, 0)

    def start(
        self, plan: "MountPlan", set_up_logging: Callable[[], None], life_end: int | None
    ) -> bytes:
        """Have it serve *plan*; its answer, once it is live or has failed."""
        from overlayd.service.handover import send

        with suppress(BrokenPipeError, ConnectionResetError):  # it has failed: the answer says why
            os.close(self._handle())
            send(self._wire, plan, set_up_logging, life_end)
        if life_end is not None:
            os.close(life_end)
        return _read_all(self._wire.detach())

    def dismiss(self) -> None:
        """End it before it was started; returns when it is gone."""
        with self._wire, suppress(ProcessLookupError, ConnectionResetError):
            process = self._handle()
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [])
            os.close(process)

    def _handle(self) -> int:
        """The process as a descriptor, which is the first thing it sends (pidfd_open(2))."""
        _, handles, _, _ = socket.recv_fds(self._wire, 1, 1, socket.MSG_CMSG_CLOEXEC)
        if not handles:
            raise ConnectionResetError
        return handles[0]


def _become_daemon(wire: socket.socket) -> "NoReturn":
    """Fork once more, away from the terminal, and serve what comes."""
    greeting = b"p"  # what `_handle` takes off before it reads words
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        _let_go_of_inherited()
        process = os.pidfd_open(os.getpid())
        socket.send_fds(wire, [greeting], [process])
        greeting = b""
        os.close(process)
        from overlayd.service.daemon import serve_order

        serve_order(wire)
    except BaseException as error:  # before there is a log
        with suppress(OSError):
            wire.sendall(greeting + f"unexpected {type(error).__name__}: {error}".encode())
    finally:
        os._exit(1)


def _let_go_of_inherited() -> None:
    """Close what came from the caller (a pipe whose reader waits for its end, a lock).

    What Python opened is not inheritable, and what came through exec(2) is: so they are told apart.
    """
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if int(name) > 2 and os.get_inheritable(int(name)):
                os.close(int(name))


def _read_all(fd: int) -> bytes:
    pieces = []
    with suppress(ConnectionResetError):  # it ended without having read everything
        while piece := os.read(fd, 65536):
            pieces.append(piece)
    os.close(fd)
    return b"".join(pieces)

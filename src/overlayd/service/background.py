"""A daemon of its own: forked off, and answered for only when the namespace is live."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress

from overlayd.errors import OverlaydError
from overlayd.service.lifecycle import serve
from overlayd.service.logs import finish_logging
from overlayd.service.plan import MountPlan

log = logging.getLogger(__name__)

_READY = b"ready"


def start_daemon(
    plan: MountPlan, set_up_logging: Callable[[], None], *, lifeline: bool = False
) -> int | None:
    """Mount *plan* in a daemon and return once it is live.

    With *lifeline*, the daemon unmounts when the returned descriptor is closed, which the end of
    this process does too. Raises OverlaydError with the daemon's own words where it failed.
    """
    heard, told = os.pipe()
    life_end, life = os.pipe() if lifeline else (None, None)
    first = os.fork()
    if first == 0:
        os.close(heard)
        if life is not None:
            os.close(life)
        _become_daemon(plan, set_up_logging, told, life_end)
    os.close(told)
    if life_end is not None:
        os.close(life_end)
    os.waitpid(first, 0)
    answer = _read_all(heard)
    if answer != _READY:
        words = answer.decode(errors="surrogateescape")
        raise OverlaydError(words or "the daemon died while it was starting; see its log")
    return life


def _become_daemon(
    plan: MountPlan, set_up_logging: Callable[[], None], told: int, lifeline: int | None
) -> None:
    """Fork once more, away from the terminal, serve, and never return."""
    status = 1
    try:
        os.setsid()
        if os.fork() != 0:
            os._exit(0)
        _let_go_of_inherited()
        set_up_logging()

        def ready() -> None:
            _let_go_of_streams()
            try:
                os.write(told, _READY)
            except BrokenPipeError:
                raise OverlaydError("whoever asked for the mount is gone already") from None
            os.close(told)

        _serve_from_root(plan, ready, lifeline)
        status = 0
    except OverlaydError as error:
        if logging.getLogger().handlers:  # the log itself may be what cannot be opened
            log.error("%s", error)
        _report(told, str(error))
    except BaseException as error:  # the last chance to say anything
        log.critical("ends unexpectedly", exc_info=True)
        _report(told, f"unexpected {type(error).__name__}: {error}")
    finally:
        with suppress(BaseException):
            finish_logging()
        os._exit(status)


def _serve_from_root(plan: MountPlan, ready: Callable[[], None], lifeline: int | None) -> None:
    os.chdir("/")  # never keep a directory of the caller's busy
    serve(plan, ready, lifeline)


def _let_go_of_inherited() -> None:
    """Close what came from the caller (a pipe whose reader waits for its end, a lock).

    What Python opened is not inheritable, and what came through exec(2) is: so they are told apart.
    """
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if int(name) > 2 and os.get_inheritable(int(name)):
                os.close(int(name))


def _let_go_of_streams() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    if null > 2:
        os.close(null)


def _report(told: int, words: str) -> None:
    with suppress(OSError):  # it was ready before, and nobody listens any more: the log has it
        os.write(told, words.encode(errors="surrogateescape"))


def _read_all(fd: int) -> bytes:
    pieces = []
    while piece := os.read(fd, 65536):
        pieces.append(piece)
    os.close(fd)
    return b"".join(pieces)

"""The daemon's side of `background`: take a plan, serve it, and say how it went."""

import logging
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from overlayd.errors import OverlaydError
from overlayd.service.background import READY
from overlayd.service.handover import receive
from overlayd.service.lifecycle import serve
from overlayd.service.logs import finish_logging
from overlayd.service.plan import MountPlan

log = logging.getLogger(__name__)


def serve_order(wire: socket.socket) -> NoReturn:
    """Serve the plan that comes by *wire*, where it is answered once; never returns."""
    status = 1
    try:
        order = receive(wire)
        if order is None:  # whoever wanted a daemon is gone
            os._exit(status)
        order.set_up_logging()

        def ready() -> None:
            _let_go_of_streams()
            try:
                wire.sendall(READY)
            except BrokenPipeError:
                raise OverlaydError("whoever asked for the mount is gone already") from None
            wire.close()

        _serve_from_root(order.plan, ready, order.lifeline)
        status = 0
    except OverlaydError as error:
        if logging.getLogger().handlers:  # the log itself may be what cannot be opened
            log.error("%s", error)
        _report(wire, str(error))
    except BaseException as error:  # the last chance to say anything
        log.critical("ends unexpectedly", exc_info=True)
        _report(wire, f"unexpected {type(error).__name__}: {error}")
    finally:
        with suppress(BaseException):
            finish_logging()
        os._exit(status)


def _serve_from_root(plan: MountPlan, ready: Callable[[], None], lifeline: int | None) -> None:
    os.chdir("/")  # never keep a directory of the caller's busy
    serve(plan, ready, lifeline)


def _let_go_of_streams() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    if null > 2:
        os.close(null)


def _report(wire: socket.socket, words: str) -> None:
    with suppress(OSError):  # it was ready before, and nobody listens any more: the log has it
        wire.sendall(words.encode(errors="surrogateescape"))

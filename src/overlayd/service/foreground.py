"""Serving in the process that was started, as service managers want it, from a plan of a child.

What reads command lines and configurations would stay with the daemon for as long as it lives. So
a child reads them, while this process loads what serving takes, and hands the plan over. It is the
same as in `background` with the parts exchanged.
"""

import importlib
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from overlayd.errors import OverlaydError
from overlayd.host import libc
from overlayd.service.background import load_for_both

TYPE_CHECKING = False  # as in typing, which takes time
if TYPE_CHECKING:
    from overlayd.service.handover import Order
    from overlayd.service.plan import MountPlan

log = logging.getLogger(__name__)

_server: list[socket.socket] = []
"""In a child, what leads to the process that is to serve."""


def serve_what(read: Callable[[], int]) -> int:
    """Serve here what *read* calls `serve_here` with in a child; the exit status.

    That is what *read* returns where it does not come to that. Raises OverlaydError as `serve_here`
    does.
    """
    load_for_both()
    wire, way_here = socket.socketpair()
    here = os.getpid()
    child = os.fork()
    if child == 0:
        wire.close()
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # one says that it was interrupted
        libc.end_with_parent()
        if os.getppid() != here:  # it has ended already
            os._exit(1)
        _server.append(way_here)
        return read()
    way_here.close()
    with wire:
        order, status = _await_order(wire, child)
    if order is None:
        return status
    order.set_up_logging()
    _serve(order.plan)
    return 0


def _await_order(wire: socket.socket, child: int) -> "tuple[Order | None, int]":
    """What *child* sends, and the status that it ends with; it is gone then."""
    try:
        importlib.import_module("overlayd.service.lifecycle")  # meanwhile
        from overlayd.service.handover import receive

        order = receive(wire)
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        _, ended = os.waitpid(child, 0)
    status = os.waitstatus_to_exitcode(ended)
    return order, status if status >= 0 else 128 - status


def serve_here(plan: "MountPlan", set_up_logging: Callable[[], None]) -> None:
    """Mount *plan* and serve it in the process that was started; *set_up_logging* fits a pickle.

    Returns when it is unmounted, or never if this is the child of that process. Raises
    OverlaydError where it cannot be mounted, or served any longer.
    """
    if not _server:
        set_up_logging()
        _serve(plan)
        return
    from overlayd.service.handover import send

    with suppress(BrokenPipeError, ConnectionResetError):  # it was told to end
        send(_server[0], plan, set_up_logging, None)
    os._exit(0)


def _serve(plan: "MountPlan") -> None:
    from overlayd.service.lifecycle import serve
    from overlayd.service.notify import ServiceManager
    from overlayd.table.guest_path import printable

    manager = ServiceManager.from_environment(os.environ)
    try:
        serve(plan, ready=lambda: _log_warning(plan.target), manager=manager)
    except OverlaydError:
        raise
    except Exception as error:  # in the log, where it is looked for, and in the log's own form
        log.critical("ends unexpectedly", exc_info=True)
        raise OverlaydError(
            f"the daemon failed unexpectedly ({type(error).__name__}); its log says where;"
            f" {printable(plan.target)} is dead until it is mounted again"
        ) from None


def _log_warning(target: str) -> None:
    """The log of a mount in the foreground is what its user looks at."""
    from overlayd.service.warnings import warning_for_mount

    words = warning_for_mount(target, foreground=True)
    if words is not None:
        log.warning("%s", words)

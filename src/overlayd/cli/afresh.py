"""Undoing what a caller may have left a command with, before anything else is done."""

import os
import signal
import sys
from contextlib import suppress

TYPE_CHECKING = False  # as in typing, which takes time
if TYPE_CHECKING:
    from typing import NoReturn


def start_afresh() -> None:
    """Undo what a caller may have left us with: closed streams, blocked and ignored signals.

    A source must not be opened as descriptor 1, and we wait for children and for signals.
    """
    with suppress(OSError):  # a machine without /dev/null
        while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(number, True)
        os.close(number)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(
        signal.SIG_UNBLOCK, (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    )
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, _frame: object) -> "NoReturn":
    """End as SIGTERM ends others, until a mount takes the signal over.

    The kernel spares PID 1 every signal it has no handler for (pid_namespaces(7)): a container
    that is stopped while it starts would sit out the whole grace period.
    """
    sys.exit(128 + number)

"""Running a command as if it had been started directly: signals, status, streams."""

import os
import signal

from overlayd.errors import OverlaydError
from overlayd.table.guest_path import printable

_NOT_FOUND = 127  # what a shell and env(1) answer
_NOT_EXECUTABLE = 126
_FORWARDED = frozenset(
    (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
    + (signal.SIGCONT, signal.SIGWINCH, signal.SIGALRM)
)
_SENT_BY_KERNEL = 0x80  # siginfo si_code SI_KERNEL: the terminal, which tells the child as well


class CommandNotStarted(OverlaydError):
    """The command does not exist or cannot be executed."""

    def __init__(self, words: str, status: int) -> None:
        super().__init__(words)
        self.exit_code = status


def run_child(arguments: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end, passing signals on; its exit status, or 128+N for signal N.

    Raises CommandNotStarted.
    """
    watched = _FORWARDED | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        child = _spawn(arguments, environment, before)
        while True:
            info = signal.sigwaitinfo(watched)
            if info.si_signo != signal.SIGCHLD:
                if info.si_code != _SENT_BY_KERNEL:
                    os.kill(child, info.si_signo)
                continue
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _spawn(
    arguments: list[str], environment: dict[str, str], mask: set[int | signal.Signals]
) -> int:
    try:
        return os.posix_spawnp(
            arguments[0],
            arguments,
            environment,
            setsigmask=mask,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores both
        )
    except FileNotFoundError:
        raise CommandNotStarted(
            f"{printable(arguments[0])}: command not found", _NOT_FOUND
        ) from None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise CommandNotStarted(f"{printable(arguments[0])}: {reason}", _NOT_EXECUTABLE) from None

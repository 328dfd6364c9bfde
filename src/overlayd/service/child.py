"""Running a command as if it had been started directly: signals, status, terminal, streams.

It stays in our process group, so that the terminal treats it as what was typed: in the foreground
with us, in a pipeline with its neighbours, told by the kernel of Ctrl-C and Ctrl-Z. What the
kernel tells the group is not passed on a second time. We stop when it stops, because a shell
watches us and not it. As PID 1 of a container, whatever is orphaned becomes our child and is
reaped, and signals come through, since we hold them blocked instead of leaving them at their
default, which PID 1 does not have.
"""

import os
import signal
from contextlib import suppress

from overlayd.errors import OverlaydError
from overlayd.table.guest_path import printable

_NOT_FOUND = 127  # what a shell and env(1) answer
_NOT_EXECUTABLE = 126
_FAULTS = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP}
"""Our own if they come at all."""
_WATCHED = signal.valid_signals() - _FAULTS - {signal.SIGSYS, signal.SIGKILL, signal.SIGSTOP}
_SENT_BY_KERNEL = 0x80  # siginfo si_code SI_KERNEL: the terminal, which tells the child as well


class CommandNotStarted(OverlaydError):
    """The command does not exist or cannot be executed."""

    def __init__(self, words: str, status: int) -> None:
        super().__init__(words)
        self.exit_code = status


def run_child(arguments: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end, passing signals on; its exit status, or 128+N for signal N.

    Signals stay blocked from then on: they were for the command, and must not end us before we
    have tidied up. Raises CommandNotStarted.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    child = _spawn(arguments, environment, before)
    while True:
        info = signal.sigwaitinfo(_WATCHED)
        if info.si_signo == signal.SIGCHLD:
            status = _look_after_children(child)
            if status is not None:
                return status
        elif info.si_code != _SENT_BY_KERNEL and info.si_pid not in (child, os.getpid()):
            os.kill(child, info.si_signo)


def _look_after_children(child: int) -> int | None:
    """Reap all that have ended, ours or adopted; the status of *child* once it is one of them."""
    status = None
    while True:
        try:
            change = os.waitid(os.P_ALL, 0, os.WEXITED | os.WSTOPPED | os.WNOHANG)
        except ChildProcessError:
            return status
        if change is None:
            return status
        if change.si_pid != child:
            continue
        if change.si_code == os.CLD_STOPPED:
            _stop_as_well(change.si_status)
            _give_terminal_back(child)
        elif change.si_code == os.CLD_EXITED:
            status = change.si_status
        else:
            status = 128 + change.si_status


def _stop_as_well(number: int) -> None:
    """Stop by the signal that stopped the command; returns when somebody continues us.

    Unless that has happened already: a second stop would take back the SIGCONT that is waiting.
    The terminal's own SIGTSTP may still be waiting too: sent before it is let through, ours becomes
    one with it, and we stop once.
    """
    if signal.SIGCONT in signal.sigpending():
        return
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})


def _give_terminal_back(child: int) -> None:
    """After fg, to a command that has made a process group of its own, as a shell does.

    It was given to our group, which is the job that the shell above knows.
    """
    group = os.getpgid(child)
    if group == os.getpgrp():
        return
    with suppress(OSError):  # no terminal, or it is another session's
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC)
        try:
            if os.tcgetpgrp(terminal) == os.getpgrp():
                os.tcsetpgrp(terminal, group)
                os.killpg(group, signal.SIGCONT)
        finally:
            os.close(terminal)


def _spawn(
    arguments: list[str], environment: dict[str, str], mask: set[int | signal.Signals]
) -> int:
    name = printable(arguments[0]) or repr(arguments[0])
    try:
        if not arguments[0]:  # posix_spawnp would complain of the call
            raise FileNotFoundError
        return os.posix_spawnp(
            arguments[0],
            arguments,
            environment,
            setsigmask=mask,
            setsigdef=(signal.SIGPIPE, signal.SIGXFSZ),  # Python ignores both
        )
    except FileNotFoundError:
        raise CommandNotStarted(f"{name}: command not found", _NOT_FOUND) from None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise CommandNotStarted(f"{name}: {reason}", _NOT_EXECUTABLE) from None

"""overlayd run."""

import os
import shlex
import signal
import sys
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from overlayd.cli import completion
from overlayd.cli.messages import note, warn
from overlayd.cli.options import Request, daemon_options, table_options
from overlayd.cli.planning import log_setup, make_plan
from overlayd.errors import OverlaydError
from overlayd.host.mounts import mount_at
from overlayd.service.background import start_daemon
from overlayd.service.child import run_child
from overlayd.service.plan import MountPlan
from overlayd.service.registry import DaemonWatch
from overlayd.service.target import take_down
from overlayd.service.warnings import ignored_mode
from overlayd.table.runtimes import fill_in, read_command, runtime_of

if TYPE_CHECKING:
    from overlayd.core.types import ErrorStyle

_WAIT_SECONDS = 10.0


@click.command(
    "run",
    context_settings={"allow_interspersed_args": False},
    options_metavar="[OPTIONS] [--]",
)
@table_options
@daemon_options
@click.option("--keep-dirs", is_flag=True, help="Leave COMMAND's own directory options alone.")
@click.option("--verbose", is_flag=True, help="Say on stderr what COMMAND is run as.")
@click.argument(
    "arguments", metavar="COMMAND...", nargs=-1, required=True, shell_complete=completion.files
)
def command(arguments: tuple[str, ...], keep_dirs: bool, verbose: bool, **shared: Any) -> int:
    """Mount at a private target, run COMMAND, unmount, and exit with COMMAND's status.

    {} in COMMAND's arguments becomes the target, which is also in $OVERLAYD_TARGET. Put -- before
    COMMAND. 128+N is the status for a COMMAND that signal N ended.

    Where COMMAND is wasmtime, wasmer, wasmedge, wazero or iwasm, its directory options are added
    to the table, and the one for the target takes their place, unless they use {} themselves.
    """
    guest = read_command(arguments, guess=keep_dirs)
    lifted = None if guest is None or keep_dirs or guest.names_target else guest
    request = Request(**shared, lifted=tuple(lifted.preopens()) if lifted else ()).with_config()
    style: ErrorStyle = "wasi" if runtime_of(arguments) == "wasmtime" else "posix"
    _unwind_on_signals()
    target = _make_target()
    try:
        words = lifted.with_target(target) if lifted else fill_in(arguments, target)
        plan = make_plan(request, target, default_errors=style, remove_target=True)
        for value in guest.ignored_modes() if guest else ():
            warn(ignored_mode(runtime_of(arguments), value, lifted=lifted is not None))
        lifeline = start_daemon(plan, log_setup(request, background=True), lifeline=True)
        try:
            if verbose:
                note(f"running {shlex.join(words)}")
            return run_child(words, {**os.environ, "OVERLAYD_TARGET": target})
        finally:
            _leave(plan, lifeline)
    finally:
        with suppress(OSError):
            os.rmdir(target)


def _unwind_on_signals() -> None:
    """Have SIGTERM and SIGHUP remove what was made so far, as SIGINT does, and not just end us."""

    def unwind(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # ignored under nohup(1)
            signal.signal(number, unwind)


def _make_target() -> str:
    try:
        return tempfile.mkdtemp(prefix="overlayd-")
    except OSError as error:
        raise OverlaydError(
            f"no temporary directory to mount on: {(error.strerror or '').lower()};"
            " set TMPDIR to a directory that can be written"
        ) from None


def _leave(plan: MountPlan, lifeline: int | None) -> None:
    """Unmount, busy or not, and see the daemon off."""
    mount = mount_at(plan.target)
    daemon = DaemonWatch(mount.dev) if mount is not None else None
    if mount is not None:
        take_down(plan.target, mount)
    if lifeline is not None:
        os.close(lifeline)
    if daemon is not None and not daemon.wait(_WAIT_SECONDS):
        raise OverlaydError("COMMAND has ended, but the daemon is still busy with requests")

"""overlayd mount."""

import logging
import os
from typing import Any

import click

from overlayd.cli import completion
from overlayd.cli.messages import warn
from overlayd.cli.options import Request, absolute_target, daemon_options, table_options
from overlayd.cli.planning import log_setup, make_plan
from overlayd.errors import OverlaydError
from overlayd.service.background import dismiss_early_daemon, start_daemon
from overlayd.service.plan import MountPlan
from overlayd.service.target import clear_dead_mount
from overlayd.service.warnings import warning_for_mount
from overlayd.table.guest_path import printable

log = logging.getLogger(__name__)


@click.command("mount")
@table_options
@daemon_options
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground and serve.")
@click.option("--replace", is_flag=True, help="Take the place of a live overlayd mount on TARGET.")
@click.option(
    "-o",
    "mount_options",
    multiple=True,
    metavar="OPTION[,OPTION...]",
    shell_complete=completion.mount_options,
    help="Options of mount(8): ro, noatime, dev, suid, fsname=, nonempty, x-mount.mkdir=MODE, ...",
)
@click.argument("target", required=False, shell_complete=completion.directories)
def command(
    target: str | None,
    foreground: bool,
    replace: bool,
    mount_options: tuple[str, ...],
    **shared: Any,
) -> None:
    """Mount the namespace on TARGET; returns when it is live, leaving a daemon.

    TARGET is an empty directory; it may be left out where the configuration file names one. A dead
    overlayd mount on it is cleared first.
    """
    request = Request(**shared).with_config()
    where = absolute_target(target, request)
    request.table()  # what is wrong with the words is said before anything is touched
    clear_dead_mount(where)  # now: a source may be the target itself
    plan = make_plan(request, where, replace=replace, mount_options=mount_options)
    set_up_logging = log_setup(request, background=not foreground)
    if foreground:
        dismiss_early_daemon()
        set_up_logging()
        _serve_here(plan)
        return
    start_daemon(plan, set_up_logging)
    words = warning_for_mount(where, foreground=False)
    if words is not None:
        warn(words)


def _log_warning(target: str) -> None:
    """The log of a mount in the foreground is what its user looks at."""
    words = warning_for_mount(target, foreground=True)
    if words is not None:
        log.warning("%s", words)


def _serve_here(plan: MountPlan) -> None:
    from overlayd.service.lifecycle import serve
    from overlayd.service.notify import ServiceManager

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

"""overlayd mount."""

from typing import Any

import click

from overlayd.cli import completion
from overlayd.cli.messages import warn
from overlayd.cli.options import Request, absolute_target, daemon_options, table_options
from overlayd.cli.planning import log_setup, make_plan
from overlayd.service.background import dismiss_early_daemon, start_daemon
from overlayd.service.foreground import serve_here
from overlayd.service.target import clear_dead_mount
from overlayd.service.warnings import warning_for_mount


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
        serve_here(plan, set_up_logging)
        return
    start_daemon(plan, set_up_logging)
    words = warning_for_mount(where, foreground=False)
    if words is not None:
        warn(words)

"""overlayd health."""

import click

from overlayd.cli import completion
from overlayd.cli.options import Request, absolute_target
from overlayd.errors import OverlaydError, UsageError
from overlayd.service.health import unhealthy
from overlayd.table.guest_path import printable


@click.command("health")
@click.option(
    "--timeout",
    "seconds",
    type=float,
    default=2.0,
    metavar="SECONDS",
    help="How long to wait for an answer. Default: 2.",
)
@click.argument("target", shell_complete=completion.mounted)
def command(target: str, seconds: float) -> None:
    """Exit 0 when the mount on TARGET answers in time, 1 with the reason when it does not."""
    if not 0 < seconds <= 3600:
        raise UsageError(f"--timeout {seconds:g}: give a number of seconds above 0, up to 3600")
    path = absolute_target(target, Request())
    reason = unhealthy(path, seconds)
    if reason is not None:
        raise OverlaydError(f"{printable(path)} {printable(reason)}")

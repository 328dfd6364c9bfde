"""overlayd health."""

import click

from overlayd.cli import completion
from overlayd.cli.options import Request, absolute_target, read_timeout
from overlayd.errors import OverlaydError
from overlayd.service.health import unhealthy
from overlayd.table.guest_path import printable


@click.command("health")
@click.option(
    "--timeout",
    "seconds",
    callback=read_timeout,
    default="2",
    metavar="SECONDS",
    help="How long to wait for an answer. Default: 2.",
)
@click.argument("target", shell_complete=completion.mounted)
def command(target: str, seconds: float) -> None:
    """Exit 0 when the mount on TARGET answers in time, 1 with the reason when it does not."""
    path = absolute_target(target, Request())
    reason = unhealthy(path, seconds)
    if reason is not None:
        raise OverlaydError(f"{printable(path)} {printable(reason)}")

"""overlayd health, whatever words it is asked in; see `main` for the plain ones."""

import click

from overlayd.cli import completion
from overlayd.cli.options import Request, absolute_target, read_timeout
from overlayd.service.health import PATIENCE, require_health


@click.command("health")
@click.option(
    "--timeout",
    "seconds",
    callback=read_timeout,
    default=f"{PATIENCE:g}",
    metavar="SECONDS",
    help=f"How long to wait for an answer. Default: {PATIENCE:g}.",
)
@click.argument("target", shell_complete=completion.mounted)
def command(target: str, seconds: float) -> None:
    """Exit 0 when the mount on TARGET answers in time, 1 with the reason when it does not."""
    require_health(absolute_target(target, Request()), seconds)

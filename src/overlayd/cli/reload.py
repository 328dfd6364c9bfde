"""overlayd reload."""

import json

import click

from overlayd.cli import completion
from overlayd.cli.options import Request, absolute_target
from overlayd.errors import OverlaydError
from overlayd.host.mounts import mount_at
from overlayd.service.client import ask
from overlayd.service.ours import is_ours
from overlayd.table.difference import Difference
from overlayd.table.guest_path import printable

_SECONDS = 40.0  # more than all that the daemon itself waits for


@click.command("reload")
@click.option("--json", "as_program", is_flag=True, help="Print one JSON object.")
@click.argument("target", shell_complete=completion.mounted)
def command(target: str, as_program: bool) -> None:
    """Have the mount on TARGET read its configuration again and apply the difference.

    Nothing is unmounted: what stays in the table goes on undisturbed. A configuration that is
    wrong is refused as a whole, and everything stays as it was. Prints what has changed.
    """
    path = absolute_target(target, Request())
    mount = mount_at(path)
    if mount is None or not is_ours(mount):
        raise OverlaydError(f"{printable(path)} holds no overlayd mount; mount it first")
    answer = ask(mount.dev, "reload", timeout=_SECONDS, target=path)
    if as_program:
        click.echo(json.dumps(answer, indent=2))
        return
    for line in Difference.from_json(answer).describe():
        click.echo(line)

"""overlayd explain."""

import json
from dataclasses import asdict
from typing import Any

import click

from overlayd.cli import completion
from overlayd.cli.live import asked
from overlayd.cli.options import Request, open_table, table_options
from overlayd.core.explain import explain_text
from overlayd.core.overlay import Overlay
from overlayd.errors import UsageError

_SECONDS = 15.0  # a daemon gives up on a source after ten


@click.command("explain")
@table_options
@click.option(
    "--target",
    metavar="TARGET",
    shell_complete=completion.mounted,
    help="Ask the live mount there; no --dir then.",
)
@click.option("--json", "as_program", is_flag=True, help="Print one JSON array.")
@click.argument("paths", metavar="GUEST-PATH...", nargs=-1, required=True)
def command(paths: tuple[str, ...], target: str | None, as_program: bool, **shared: Any) -> None:
    """Say which preopen provides a guest path, its host path, and whether it is writable.

    Links on the way to a path are followed inside the namespace, a link at its end is not.
    """
    if target is None:
        answers = _by_table(Request(**shared).with_config(), paths)
    elif any(value not in (None, ()) for value in shared.values()):
        raise UsageError("--target asks a live mount, whose table stands; leave the others out")
    else:
        answers = asked(target, "explain", _SECONDS, paths=list(paths))
    if as_program:
        click.echo(json.dumps(answers, indent=2))
        return
    for answer in answers:
        _print(answer)


def _by_table(request: Request, paths: tuple[str, ...]) -> list[dict[str, Any]]:
    table, sources = open_table(request)
    overlay = Overlay(table, sources, request.rules())
    with overlay.namespace.patience():
        return [asdict(explain_text(overlay.namespace, overlay.access, path, [])) for path in paths]


def _print(answer: dict[str, Any]) -> None:
    click.echo(answer["asked"])
    if answer["guest"] != answer["asked"]:
        click.echo(f"  is:        {answer['guest']}")
    click.echo(f"  kind:      {answer['kind']}")
    click.echo(f"  preopen:   {answer['provider'] or 'none'}")
    if answer["host"] is not None:
        click.echo(f"  host path: {answer['host']}")
    click.echo(f"  writable:  {'yes' if answer['writable'] else 'no'}: {answer['reason']}")

"""overlayd explain."""

import json
from dataclasses import asdict
from typing import Any

import click

from overlayd.cli.options import Request, open_table, table_options
from overlayd.core.explain import Explanation, explain
from overlayd.core.overlay import Overlay
from overlayd.errors import OverlaydError, UsageError
from overlayd.table.guest_path import parse_guest_path, printable


@click.command("explain")
@table_options
@click.option("--json", "as_program", is_flag=True, help="Print one JSON array.")
@click.argument("paths", metavar="GUEST-PATH...", nargs=-1, required=True)
def command(paths: tuple[str, ...], as_program: bool, **shared: Any) -> None:
    """Say which preopen provides a guest path, its host path, and whether it is writable.

    Links on the way to a path are followed inside the namespace, a link at its end is not.
    """
    request = Request(**shared).with_config()
    table, sources = open_table(request)
    overlay = Overlay(table, sources, request.rules())
    answers = [_explain(overlay, path) for path in paths]
    if as_program:
        click.echo(json.dumps([asdict(answer) for answer in answers], indent=2))
        return
    for answer in answers:
        _print(answer)


def _explain(overlay: Overlay, text: str) -> Explanation:
    try:
        path = parse_guest_path(text)
    except ValueError as error:
        raise UsageError(f"{printable(text)}: {error}; write it out without '..'") from None
    try:
        with overlay.namespace.patience():
            return explain(overlay.namespace, overlay.access, path)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise OverlaydError(f"{printable(text)}: {reason} in the namespace") from None


def _print(answer: Explanation) -> None:
    click.echo(answer.asked)
    if answer.guest != answer.asked:
        click.echo(f"  is:        {answer.guest}")
    click.echo(f"  kind:      {answer.kind}")
    click.echo(f"  preopen:   {answer.provider or 'none'}")
    if answer.host is not None:
        click.echo(f"  host path: {answer.host}")
    click.echo(f"  writable:  {'yes' if answer.writable else 'no'}: {answer.reason}")

"""overlayd check."""

import json
from typing import Any

import click

from overlayd.cli.options import Request, open_table, table_options
from overlayd.host.locations import Locator
from overlayd.table.aliases import Alias, find_aliases
from overlayd.table.mount_tree import MountTable
from overlayd.table.report import Overlap, as_json, find_overlaps, tree_lines, warnings


@click.command("check")
@table_options
@click.option("--json", "as_program", is_flag=True, help="Print one JSON object.")
@click.option("--strict", is_flag=True, help="Exit 1 if there is any warning.")
def command(as_program: bool, strict: bool, **shared: Any) -> int:
    """Print the merged table as a tree, what masks what, and what is shown twice; mounts nothing.

    Exit status 2 for a table that could not be mounted.
    """
    table, sources = open_table(Request(**shared).with_config())
    overlaps = find_overlaps(table, [source.covers for source in sources])
    aliases = find_aliases(table, Locator(table, sources).parts)
    if as_program:
        click.echo(json.dumps(as_json(table, overlaps, aliases), indent=2))
    else:
        _print(table, overlaps, aliases)
    return 1 if strict and warnings(overlaps, aliases) else 0


def _print(table: MountTable, overlaps: list[Overlap], aliases: list[Alias]) -> None:
    for line in tree_lines(table):
        click.echo(line)
    if overlaps or aliases:
        click.echo()
    for overlap in overlaps:
        click.echo(overlap.sentence())
    for alias in aliases:
        if not alias.is_conflict:
            click.echo(alias.sentence())
    for warning in warnings(overlaps, aliases):
        click.echo(f"warning: {warning}")

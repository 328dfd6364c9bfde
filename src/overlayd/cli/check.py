"""overlayd check."""

import json
from collections.abc import Sequence
from typing import Any

import click

from overlayd.cli.options import Request, open_table, table_options
from overlayd.host.locations import Locator
from overlayd.host.mounts import read_mounts
from overlayd.host.sources import Source
from overlayd.table.aliases import Alias, find_aliases
from overlayd.table.guest_path import show
from overlayd.table.mount_tree import MountTable
from overlayd.table.report import Overlap, as_json, find_overlaps, tree_lines, warnings


@click.command("check")
@table_options
@click.option("--json", "as_program", is_flag=True, help="Print one JSON object.")
@click.option("--strict", is_flag=True, help="Exit 1 if there is any warning.")
@click.option("-v", "--verbose", is_flag=True, help="Say which way data would go, too.")
def command(as_program: bool, strict: bool, verbose: bool, **shared: Any) -> int:
    """Print the merged table as a tree, what masks what, and what is shown twice; mounts nothing.

    Exit status 2 for a table that could not be mounted.
    """
    request = Request(**shared).with_config()
    table, sources = open_table(request)
    overlaps = find_overlaps(table, [source.covers for source in sources])
    aliases = find_aliases(table, Locator(table, sources).parts)
    data = _data(request, sources) if verbose else None
    if as_program:
        answer = as_json(table, overlaps, aliases) | ({} if data is None else {"data": data})
        click.echo(json.dumps(answer, indent=2))
    else:
        _print(table, overlaps, aliases)
        if data is not None:
            _print_data(data)
    return 1 if strict and warnings(overlaps, aliases) else 0


def _data(request: Request, sources: Sequence[Source]) -> dict[str, Any]:
    """Which way the data of open files would go in a mount by this process."""
    from overlayd.kernel.passthrough import SWITCHED_OFF, obstacle

    off = request.setting("passthrough", "auto") == "off"
    slow = {mount.mount_id: mount.fs_type for mount in read_mounts() if mount.may_block}
    return {
        "obstacle": SWITCHED_OFF if off else obstacle(),
        "through_the_daemon": {
            show(source.preopen.guest): slow[source.stat.mount_id]
            for source in sources
            if source.stat.mount_id in slow
        },
    }


def _print_data(data: dict[str, Any]) -> None:
    click.echo()
    if data["obstacle"]:
        click.echo(f"data: through the daemon: {data['obstacle']}")
        return
    click.echo("data: past the daemon, by the kernel")
    for guest, fs_type in data["through_the_daemon"].items():
        click.echo(f"{guest}: through the daemon: its source lies on {fs_type}")


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

"""What commands say besides their output: one line each, on stderr."""

import click

from overlayd.table.guest_path import printable


def warn(words: str) -> None:
    """Say what the user would not see otherwise, and go on."""
    click.echo(f"overlayd: warning: {printable(words)}", err=True)


def note(words: str) -> None:
    """Say what was asked for with --verbose."""
    click.echo(f"overlayd: {printable(words)}", err=True)

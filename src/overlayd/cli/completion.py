"""What the shell's Tab key is offered for the words that only overlayd knows.

The scripts in completions/ ask for it through $_OVERLAYD_COMPLETE, which click answers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from overlayd.host.mounts import FILE_SYSTEM_TYPE, read_mounts
from overlayd.service.mount_options import known_options

if TYPE_CHECKING:
    import click
    from click.shell_completion import CompletionItem


def files(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The shell's own completion of file names."""
    return [_item(incomplete, "file")]


def directories(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The shell's own completion of directories."""
    return [_item(incomplete, "dir")]


def preopen(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """HOST from the file system, OPTIONS from those there are; nobody knows GUEST yet."""
    fields = incomplete.split("::")
    if len(fields) == 1:
        return [_item(incomplete, "file")]  # a regular file is a preopen too
    if len(fields) == 3:
        return _matching([f"{fields[0]}::{fields[1]}::{mode}" for mode in ("ro", "rw")], incomplete)
    return []


def mounted(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The targets of overlayd's mounts, dead ones too; directories where none fits."""
    mounts = (mount for mount in read_mounts() if mount.fs_type == FILE_SYSTEM_TYPE)
    targets = sorted({os.fsdecode(mount.mount_point) for mount in mounts})
    return _matching(targets, incomplete) or [_item(incomplete, "dir")]


def cache_words(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """What --cache takes besides a number."""
    return _matching(["coherent", "none"], incomplete)


def mount_options(
    _ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The last option of a list with commas."""
    before, comma, _ = incomplete.rpartition(",")
    return _matching([f"{before}{comma}{option}" for option in known_options()], incomplete)


def _matching(words: list[str], incomplete: str) -> list[CompletionItem[str]]:
    return [_item(word) for word in words if word.startswith(incomplete)]


def _item(value: str, kind: str = "plain") -> CompletionItem[str]:
    from click.shell_completion import CompletionItem

    return CompletionItem(value, type=kind)

"""The man pages say what --help and the configuration file's structs say, no more and no less."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from overlayd.cli.commands import cli
from overlayd.cli.fstab import helper
from overlayd.service.mount_options import known_options
from overlayd.table.config import ConfigFile, DirEntry

PAGES = Path(__file__).parents[2] / "docs/man"
MANUAL = PAGES / "overlayd.1"
SHARED = {
    "Shared by mount, run, check and explain": ("mount", "run", "check", "explain"),
    "Of the daemon: mount and run": ("mount", "run"),
}


def text_of(page: Path) -> str:
    """The page without its fonts: what a reader sees, with the macros still in place."""
    text = re.sub(r"\\f[BIRP]", "", page.read_text())
    return text.replace(r"\-", "-").replace(r"\(dq", '"')


def sections(page: Path) -> dict[str, str]:
    """The text below each heading, .SH and .SS alike."""
    parts = re.split(r'^\.S[HS] "?([^"\n]*)"?\n', text_of(page), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def labels(text: str) -> Iterator[str]:
    """The first line of each item: what follows .TP."""
    return (match[1] for match in re.finditer(r"^\.TP\n(.*)", text, re.MULTILINE))


def options_in(text: str) -> set[str]:
    """The option names that items of *text* describe."""
    words = " ".join(labels(text))
    return set(re.findall(r"(?<![\w-])(--?[A-Za-z][a-z-]*)", words))


def documented() -> dict[str, set[str]]:
    """Each command's options, as overlayd(1) has them."""
    found: dict[str, set[str]] = {}
    by_heading = sections(MANUAL)
    for heading, text in by_heading.items():
        if heading.startswith("overlayd "):
            found[heading.split()[1]] = options_in(text)
    for heading, names in SHARED.items():
        for name in names:
            found[name] |= options_in(by_heading[heading])
    return found


def options_of(command: click.Command) -> set[str]:
    """The option names in --help."""
    return {
        name
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for name in [*parameter.opts, *parameter.secondary_opts]
    }


def commands() -> dict[str, set[str]]:
    """Each command's options, as --help has them."""
    with click.Context(cli) as context:
        names = cli.list_commands(context)
        return {name: options_of(command_named(context, name)) for name in names}


def command_named(context: click.Context, name: str) -> click.Command:
    command = cli.get_command(context, name)
    assert command is not None
    return command


def test_every_command_has_its_section_and_its_line_in_the_synopsis() -> None:
    assert set(documented()) == set(commands())
    synopsis = sections(MANUAL)["SYNOPSIS"]
    for name in commands():
        assert f"overlayd {name}" in synopsis


def test_every_option_is_described_and_every_described_one_exists() -> None:
    pages, helps = documented(), commands()
    described = {(name, option) for name in helps for option in pages[name]}
    existing = {(name, option) for name in helps for option in helps[name]}
    assert described - existing == set()
    assert existing - described == set()


def test_the_options_of_the_program_itself() -> None:
    described = options_in(sections(MANUAL)["OPTIONS"])
    assert described == options_of(cli) | {"-h", "--help"}


def test_the_help_of_every_command_names_its_arguments_as_the_page_does() -> None:
    with click.Context(cli) as context:
        for name in commands():
            usage = command_named(context, name).collect_usage_pieces(context)
            heading = next(h for h in sections(MANUAL) if h.startswith(f"overlayd {name}"))
            for piece in usage[1:]:
                assert piece.strip("[].") in heading, name


def test_every_mount_option_is_in_a_page() -> None:
    both = text_of(MANUAL) + text_of(PAGES / "mount.overlayd.8")
    opposites = {"rw", "dev", "suid", "exec", "async", "atime"}  # "and their opposites"
    rare = {"default_permissions", "max_read="}  # libfuse's own, for those who know them
    for option in set(known_options()) - opposites - rare:
        assert option in both, option


def test_the_mount_helper() -> None:
    headings = sections(PAGES / "mount.overlayd.8")
    assert options_in(headings["OPTIONS"]) == options_of(helper) | {"-h", "--help"}


def test_every_key_of_the_configuration_file() -> None:
    headings = sections(PAGES / "overlayd.toml.5")
    for heading, struct in (("KEYS", ConfigFile), ("Keys of each [[dir]]", DirEntry)):
        keys = [line.split()[1] for line in labels(headings[heading])]
        assert keys == list(struct.__struct_fields__), heading


@pytest.mark.parametrize("page", sorted(PAGES.iterdir()), ids=lambda page: page.name)
def test_mandoc_finds_nothing_to_mend(page: Path) -> None:
    done = subprocess.run(
        ["mandoc", "-T", "lint", str(page)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

"""The README and docs/: links lead somewhere, commands and configuration files are right."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from overlayd.cli.commands import cli
from overlayd.table.config import ConfigFile, DirEntry

TOP = Path(__file__).parents[2]
PAGES = [TOP / "README.md", *sorted((TOP / "docs").glob("*.md"))]

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """Every `overlayd ...` that follows a prompt, and the page it stands on."""
    pages = [*PAGES, *sorted((TOP / "docs/man").iterdir())]
    for page in pages:
        text = re.sub(r"\\e?\n\s*", " ", page.read_text().replace("\\-", "-"))
        blocks = re.findall(r"^(?:```console|\.EX)\n(.*?)^(?:```|\.EE)", text, re.M | re.S)
        text = "\n".join(blocks)
        for line in re.findall(r"^[$#] (overlayd .*)", text, re.MULTILINE):
            words = shlex.split(re.split(r"\s*(?:&&|\|\||[;<|>])\s", line)[0], comments=True)
            yield page.name, words[1:]


@pytest.mark.parametrize(
    ("page", "words"), list(command_lines()), ids=lambda value: str(value)[:60]
)
def test_commands_are_ones_that_exist(page: str, words: list[str]) -> None:
    del page
    with click.Context(cli) as context:
        if words[0].startswith("-"):
            assert words == ["--version"]
            return
        command = cli.get_command(context, words[0])
        assert command is not None
        command.make_context(words[0], words[1:], parent=context)


def toml_blocks() -> Iterator[str]:
    for page in PAGES:
        text = page.read_text()
        yield from re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for _, here in re.findall(r"<<'(\w+)'\n(.*?)^\1$", text, re.MULTILINE | re.DOTALL):
            if "[[dir]]" in here:
                yield here
    yield (TOP / "docs/example.toml").read_text()


@pytest.mark.parametrize("text", list(toml_blocks()))
def test_configuration_files_are_right(text: str) -> None:
    config = msgspec.convert(tomllib.loads(text), ConfigFile)
    assert config.dir


def test_the_page_on_configuration_knows_every_key_and_option() -> None:
    page = (TOP / "docs/configuration.md").read_text()
    (block,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert set(tomllib.loads(block)) == set(ConfigFile.__struct_fields__), "the example has all"
    for key in (*ConfigFile.__struct_fields__, *DirEntry.__struct_fields__):
        assert f"`{key}`" in page or f"[[{key}]]" in page
    with click.Context(cli) as context:
        command = cli.get_command(context, "run")
        assert command is not None
        for parameter in command.params:
            if parameter.name not in ("arguments", "keep_dirs", "verbose"):
                assert f"`{parameter.opts[0]}" in page, parameter.name


def test_the_example_shows_every_key() -> None:
    text = (TOP / "docs/example.toml").read_text()
    for key in ConfigFile.__struct_fields__:
        assert re.search(rf"^(#?{key} = |\[\[{key}\]\])", text, re.MULTILINE) or key == "target"

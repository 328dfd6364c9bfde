"""docs/troubleshooting.md has every error and warning that the source can say."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.messages import Message, messages

PAGE = Path(__file__).parents[2] / "docs/troubleshooting.md"

NOT_SAID = {
    "unknown field",  # of msgspec's own words, which are put into ours
}


def squeezed(text: str) -> str:
    """Without what differs between a page and a source: line breaks and repeated blanks."""
    return " ".join(text.split())


@pytest.fixture(scope="module")
def page() -> str:
    return squeezed(PAGE.read_text())


@pytest.mark.parametrize("message", messages(), ids=lambda message: message.where)
def test_the_page_has_it(page: str, message: Message) -> None:
    missing = [words for words in message.words if words not in page and words not in NOT_SAID]
    assert not missing, f"{message.where}: tell in docs/troubleshooting.md what to do about it"


def test_the_messages_are_found() -> None:
    """What this test rests on: the ways in which the source says something."""
    found = {words for message in messages() for words in message.words}
    assert {
        "no target: name a directory to mount on, or set target in the file",  # a constant
        "does not exist; create it: mkdir -p",  # an f-string
        "is neither a directory nor a regular file",  # an argument of a function that makes one
        "write it out as an absolute path without '..'",  # a variable
        "give an existing, readable directory or regular file",  # what a function returns
        "the guest path is empty",  # a ValueError that is quoted
        "is dead: its daemon is gone; mount again, or clear it with overlayd umount",
        "more changes were denied like that (",  # the log
    } <= found
    assert len(messages()) > 100

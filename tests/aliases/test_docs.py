"""The page on read-only shows what overlayd really says."""

from __future__ import annotations

import re
from pathlib import Path

from aliases.examples import rendered
from aliases.private_mounts import in_private_mounts

PAGE = Path(__file__).parents[2] / "docs/guarantees.md"


def test_the_examples_print_what_the_page_says(tmp_path: Path) -> None:
    written = PAGE.read_text()
    assert in_private_mounts(lambda: rendered(written, tmp_path)) == written


def test_every_kind_of_alias_has_an_example() -> None:
    """A command of overlayd and its answer below each heading of a case."""
    cases = re.split(r"^### ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    assert len(cases) == 7
    for case in cases:
        assert re.search(r"^\$ overlayd (check|explain) ", case, re.MULTILINE), case
        assert re.search(r"shown read-only", case), case

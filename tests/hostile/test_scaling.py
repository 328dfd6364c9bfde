"""Ten times as many preopens must not cost a hundred times as much."""

from __future__ import annotations

import gc
import json
import resource
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from aliases.private_mounts import in_private_mounts
from overlayd.cli.commands import cli
from overlayd.core.overlay import Overlay
from overlayd.host.locations import Locator
from overlayd.host.sources import find_overlapping, open_sources
from overlayd.table.aliases import find_aliases
from overlayd.table.mount_tree import build_table
from overlayd.table.preopen import parse_preopen
from support.garbage import none_collected

if TYPE_CHECKING:
    from _typeshed import TraceFunction

FEW, MANY = 300, 3_000
AT_MOST = 20.0


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Path]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(16384, before[1]), before[1]))
    for number in range(MANY):
        (tmp_path / f"h{number}").mkdir()
    yield tmp_path
    gc.collect()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def entries(hosts: Path, count: int, *, same: bool = False) -> list[str]:
    """COUNT preopens, three deep and side by side; all of one directory where SAME."""
    return [
        f"{hosts}/h{0 if same else i}::/a{i % 17}/b/c{i}{'::ro' * (i % 2)}" for i in range(count)
    ]


def steps_of(work: Callable[[], object]) -> int:
    """How many lines of overlayd's own code WORK runs: a clock that nobody else's load moves."""
    steps = 0

    def trace(frame: FrameType, event: str, argument: object) -> TraceFunction | None:
        nonlocal steps
        if "overlayd" not in frame.f_code.co_filename:
            return None
        steps += 1
        return trace

    with none_collected():
        sys.settrace(trace)
        try:
            work()
        finally:
            sys.settrace(None)
    return steps


def check_as_json(words: list[str]) -> object:
    arguments = [word for text in words for word in ("--dir", text)]
    done = CliRunner().invoke(cli, ["check", "--json", *arguments], standalone_mode=False)
    assert done.exception is None
    return json.loads(done.stdout)


def explain_some(words: list[str]) -> object:
    arguments = [word for text in words for word in ("--dir", text)]
    asked = [f"/a{i % 17}/b/c{i}" for i in (0, len(words) - 1)]
    done = CliRunner().invoke(cli, ["explain", *arguments, *asked], standalone_mode=False)
    assert done.exception is None
    return done.stdout


def table_alone(words: list[str]) -> object:
    return build_table(map(parse_preopen, words))


def sources_and_overlaps(words: list[str]) -> object:
    table = build_table(map(parse_preopen, words))
    sources = open_sources(table)
    return find_overlapping(sources)


def places_and_aliases(words: list[str]) -> object:
    table = build_table(map(parse_preopen, words))
    sources = open_sources(table)
    return find_aliases(table, Locator(table, sources).parts)


@pytest.mark.parametrize(
    "work", [table_alone, sources_and_overlaps, places_and_aliases, check_as_json, explain_some]
)
def test_ten_times_the_preopens_cost_about_ten_times(
    hosts: Path, work: Callable[[list[str]], object]
) -> None:
    few = steps_of(lambda: work(entries(hosts, FEW)))
    many = steps_of(lambda: work(entries(hosts, MANY)))
    assert many / few < AT_MOST


def test_one_directory_many_times_is_found_in_one_pass(hosts: Path) -> None:
    """Equal sources are compared with a table, not with one another."""
    tables = [build_table(map(parse_preopen, entries(hosts, n, same=True))) for n in (FEW, MANY)]
    few, many = (open_sources(table) for table in tables)
    assert find_overlapping(many) == frozenset(range(MANY))
    ratio = steps_of(lambda: find_overlapping(many)) / steps_of(lambda: find_overlapping(few))
    assert ratio < AT_MOST


def cost_of_a_lookup(hosts: Path, count: int) -> int:
    table = build_table(map(parse_preopen, entries(hosts, count)))
    overlay = Overlay(table, open_sources(table))
    first = overlay.names.lookup(1, b"a0").number
    second = overlay.names.lookup(first, b"b").number
    return steps_of(partial(overlay.names.lookup, second, b"c0"))


def test_a_lookup_costs_the_same_among_many(hosts: Path) -> None:
    """Among mounts of its own: whatever is mounted on this machine makes the next look again."""

    def measured() -> list[int]:
        return [cost_of_a_lookup(hosts, count) for count in (FEW, MANY)]

    costs = in_private_mounts(measured, bare=True)
    assert costs[0] == costs[1]


def test_deep_guest_paths_cost_what_they_are_long(hosts: Path) -> None:
    deepest = f"{hosts}/h0::" + "/d" * 2047
    table = build_table([parse_preopen(deepest)])
    assert sum(1 for _ in table.root.walk()) == 2048
    report = check_as_json([deepest])
    assert isinstance(report, dict)
    assert report["preopens"][0]["guest"] == "/d" * 2047

"""Every change on the host, by every way, seen through every view: in time, in each cache mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aliases.private_mounts import bind, in_private_mounts
from coherence.matrix import Matrix, Way, by_hard_link, by_path, by_source, sample
from support.live import make_dirs
from support.mounting import mounted

pytestmark = pytest.mark.usefixtures("data_way")

LIMITS = {"coherent": 2.0, "none": 0.0, "1": 3.0}
"""Seconds; far above what is promised, for busy machines, and far below for ever."""

BIND = "bind mount"

every_mode = pytest.mark.parametrize("mode", LIMITS)


@contextmanager
def two_mounts(place: Path, mode: str) -> Iterator[list[Way]]:
    """A mount with caching of MODE and one more of the same source; the ways to that source."""
    source, aliases, bound = make_dirs(place, "source", "aliases", "bound")
    with (
        mounted(place, f"{source}::/", options=["--cache", mode]) as top,
        mounted(place, f"{source}::/") as second,
    ):
        yield [
            by_source("source", top, source),
            by_hard_link(top, source, aliases),
            sample(by_path(BIND, top, source, bound), 0),
            by_path("second mount", top, source, second),
        ]


def not_seen(place: Path, ways: list[Way], watched: bool, seconds: float) -> list[str]:
    """What is not right SECONDS after changes by WAYS, or after more of them."""
    with Matrix(place, watched) as matrix:
        matrix.plant(*ways)
        for way in ways:
            if way.name == BIND:
                bind(way.host, way.acted_on)
        matrix.warm()
        matrix.change()
        wrong = matrix.wrong(seconds)
        if watched and not wrong:  # what was moved and replaced is watched where it is now
            matrix.change_more()
            wrong = [f"later: {each}" for each in matrix.wrong(seconds)]
        return wrong


@every_mode
def test_what_the_host_changes_is_seen(tmp_path: Path, mode: str) -> None:
    watched, limit = mode == "coherent", LIMITS[mode]
    with two_mounts(tmp_path, mode) as ways:
        if not watched:  # which way it came is nothing to a clock
            ways = [sample(way, turn, 4) for turn, way in enumerate(ways)]
        wrong = in_private_mounts(lambda: not_seen(tmp_path / "own", ways, watched, limit))
    assert not wrong, "\n".join(wrong)


@every_mode
def test_what_is_changed_through_another_preopen_is_seen_at_once(tmp_path: Path, mode: str) -> None:
    (source,) = make_dirs(tmp_path, "source")
    entries = (f"{source}::/once", f"{source}::/again")
    with mounted(tmp_path, *entries, options=["--cache", mode]) as top:
        way = sample(
            by_path("preopen", top / "once", source, top / "again"), list(LIMITS).index(mode), 6
        )
        wrong = in_private_mounts(lambda: not_seen(tmp_path / "own", [way], True, 0))
    assert not wrong, "\n".join(wrong)

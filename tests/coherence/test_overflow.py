"""More changes than the host's kernel keeps events for: all is forgotten, and nothing is wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coherence.matrix import Matrix, by_source, sample
from support.live import daemon_of, make_dirs
from support.mounting import mounted
from support.processes import in_child, stopped

pytestmark = pytest.mark.usefixtures("data_way")

LIMIT = 5.0
"""Seconds, from when the daemon goes on: it has all those events to read first."""


def flood(directory: Path) -> None:
    """Two events for each rename, none like the one before, until no more are kept."""
    names = [directory / "this", directory / "that"]
    names[0].touch()
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for turn in range(most // 2 + 100):
        os.rename(names[turn % 2], names[1 - turn % 2])


def not_seen(place: Path, source: Path, top: Path, daemon: int) -> list[str]:
    """What is not right in time after changes that no event tells of."""
    with Matrix(place, watched=True) as matrix:
        matrix.plant(sample(by_source("source", top, source), 0))
        matrix.warm()
        assert os.listdir(top / "flooded") == []
        with stopped(daemon):
            flood(source / "flooded")
            matrix.change()
        wrong = matrix.wrong(LIMIT)
        if sorted(os.listdir(top / "flooded")) != sorted(os.listdir(source / "flooded")):
            wrong.append("the flooded directory")
        return wrong


def test_after_a_queue_overflow_everything_is_right(tmp_path: Path) -> None:
    (source,) = make_dirs(tmp_path, "source")
    (source / "flooded").mkdir()
    with mounted(tmp_path, f"{source}::/") as top:
        daemon = daemon_of(top)
        wrong = in_child(not_seen, tmp_path / "own", source, top, daemon)
    assert not wrong, "\n".join(wrong)

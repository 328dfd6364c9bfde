"""How soon a change on the host shows: measured and told, and held to no more than a wide limit.

`pytest -s` prints it. The promise of 100 ms is one for a machine that is not busy.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.mounting import mounted
from support.planting import plant
from support.processes import in_child

pytestmark = pytest.mark.alone

TURNS = 12
LIMIT = 2.0
"""Seconds."""


def latency(change: Callable[[], object], shows: Callable[[], bool]) -> float:
    """Seconds after CHANGE until a guest that looks all the time sees it."""
    change()
    began = time.monotonic()
    while not shows():
        if time.monotonic() - began > LIMIT:
            return float("inf")
    return time.monotonic() - began


def latencies(source: Path, top: Path) -> dict[str, list[float]]:
    """Of changes one at a time, each long after the last."""
    found: dict[str, list[float]] = {"attributes": [], "new name": [], "removed name": []}
    for turn in range(TURNS):
        os.lstat(top / "file")
        assert not os.path.lexists(top / "new")
        new, mode = source / "new", 0o600 + turn
        found["attributes"].append(
            latency(
                lambda mode=mode: (source / "file").chmod(mode),  # type: ignore[misc]
                lambda mode=mode: os.lstat(top / "file").st_mode & 0o777 == mode,  # type: ignore[misc]
            )
        )
        found["new name"].append(latency(new.touch, lambda: os.path.lexists(top / "new")))
        found["removed name"].append(latency(new.unlink, lambda: not os.path.lexists(top / "new")))
    return found


def test_how_soon(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    source = plant(tmp_path / "source", "file=file")
    with mounted(tmp_path, f"{source}::/") as top:
        found = in_child(latencies, source, top)
    for kind, seconds in found.items():
        median, slowest = (
            f"{1000 * each:.1f} ms" for each in (statistics.median(seconds), max(seconds))
        )
        print(f"{kind}: median {median}, slowest {slowest} of {TURNS}")
        record_property(kind, f"median {median}, slowest {slowest}")
        assert slowest != "inf ms", found

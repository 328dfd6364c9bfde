"""A directory of 100,000 entries, listed while names come and go."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.dents import listing
from support.mounting import mounted
from support.planting import plant

LASTING = 100_000


@contextmanager
def changing(change: Callable[[int], None]) -> Iterator[list[int]]:
    """CHANGE is called with 0, 1, 2, … all through the block; yields the number of calls."""
    stop = threading.Event()
    calls = [0]

    def go_on() -> None:
        while not stop.is_set():
            change(calls[0])
            calls[0] += 1

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield calls
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source with many names of one file."""
    source = plant(tmp_path_factory.mktemp("large") / "source", "many/n0=content")
    for number in range(1, LASTING):
        # Hard links are made faster than files, up to what ext4 allows for one inode.
        first = number // 50_000 * 50_000
        if number == first:
            (source / f"many/n{number}").touch()
        else:
            os.link(source / f"many/n{first}", source / f"many/n{number}")
    return source


def test_no_name_twice_and_none_lost(tmp_path: Path, lasting: Path) -> None:
    expected = {b"n%d" % number for number in range(LASTING)}
    with mounted(tmp_path, f"{lasting}::/") as top:
        sides = (top / "many", lasting / "many")

        def change(number: int) -> None:
            place = sides[number % 2]
            (place / f"come-{number}").touch()
            if number >= 50:
                os.unlink(place / f"come-{number - 50}")

        with changing(change) as calls:
            dents = listing(top / "many")
    names = [dent.name for dent in dents]
    assert len(names) == len(set(names))
    assert {n for n in names if not n.startswith(b"come-")} == expected | {b".", b".."}
    assert calls[0] > 20

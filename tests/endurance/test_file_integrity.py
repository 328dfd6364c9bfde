"""A long random mix of operations on one file, compared with a model after each step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from support.file_exerciser import SMALL, SPARSE, Exerciser
from support.mounting import mounted
from support.planting import plant

pytestmark = pytest.mark.usefixtures("data_way")

STEPS = 500


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize(
    ("windows", "cache"),
    [(SMALL, "coherent"), (SMALL, "none"), (SPARSE, "coherent")],
    ids=["small", "small, uncached", "beyond 4 GiB"],
)
def test_a_file_holds_what_was_written(
    tmp_path: Path, seed: int, windows: Sequence[int], cache: str
) -> None:
    source = plant(tmp_path / "source")
    with mounted(tmp_path, f"{source}::/", options=["--cache", cache]) as top:
        exerciser = Exerciser(top, seed, windows)
        for _ in range(STEPS):
            exerciser.step()
        exerciser.finish(source)
    assert len(exerciser.done) == 12
    assert list(source.iterdir()) == []


def test_the_exerciser_agrees_with_a_plain_directory(tmp_path: Path) -> None:
    """The control: what it finds on a mount is the mount's doing."""
    for seed, windows in ((1, SMALL), (2, SPARSE)):
        exerciser = Exerciser(tmp_path, seed, windows)
        for _ in range(STEPS):
            exerciser.step()
        exerciser.finish()

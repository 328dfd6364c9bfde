"""One sandbox with the images in it for all tests of containers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.engine import Engine
from container.image import build_images
from container.sandbox import sandbox

_SECONDS = 900
"""For a test, the image's building included: half a minute where the machine has nothing else."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give whichever test comes first the time to build the image, and the machine."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.timeout(_SECONDS))
            item.add_marker(pytest.mark.alone)


def _why_not() -> str | None:
    """What this machine lacks to run any container at all."""
    if os.geteuid() != 0:
        return "containers: only root can make the namespaces"
    if not Path("/dev/fuse").exists():
        return "containers: /dev/fuse is missing"
    if not os.access("/sys/fs/cgroup", os.W_OK):
        return "containers: the cgroups of this machine cannot be written"
    return None


@pytest.fixture(scope="session")
def built() -> Iterator[tuple[Engine, str]]:
    """An engine whose images are built, and what the build said."""
    if reason := _why_not():
        pytest.skip(reason)
    with sandbox() as box:
        said = build_images(box)
        yield Engine(box), said


@pytest.fixture
def engine(built: tuple[Engine, str]) -> Iterator[Engine]:
    """An engine without containers, with an empty project and an empty shared directory."""
    engine, _ = built
    engine.clear()
    yield engine
    engine.clear()

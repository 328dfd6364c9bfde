"""Fixtures of the tests of data that passes the daemon by."""

from __future__ import annotations

import os

import pytest

from passthrough.mounts import SINCE, kernel_version
from support.isolation import open_path, runtime_directory

__all__ = ["open_path", "runtime_directory"]


@pytest.fixture(autouse=True, scope="session")
def _kernel() -> None:
    if kernel_version() < SINCE:
        pytest.skip(f"Linux {os.uname().release} is older than passthrough")

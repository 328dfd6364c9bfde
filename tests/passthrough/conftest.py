"""Fixtures of the tests of data that passes the daemon by."""

from __future__ import annotations

import os

import pytest

from overlayd.host.device import kernel_version
from passthrough.mounts import SINCE
from support.isolation import open_path, runtime_directory

__all__ = ["open_path", "runtime_directory"]


@pytest.fixture(autouse=True, scope="session")
def _kernel() -> None:
    if kernel_version() < SINCE:
        pytest.skip(f"Linux {os.uname().release} is older than passthrough")

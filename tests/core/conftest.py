"""The core is tested as the daemon runs it: with no umask of its own."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _as_in_the_daemon(no_umask: None) -> None:
    """See `no_umask`."""

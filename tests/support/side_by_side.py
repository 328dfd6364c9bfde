"""Children that go on beside the test, for what may wait or is to be interrupted."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from support.processes import LIMIT, has_ended, outcome, wait_until


def start(call: Callable[[], object]) -> int:
    """CALL in a child of its own, whatever becomes of it; the child's process id."""
    child = os.fork()
    if child == 0:
        try:
            outcome(call)
        finally:
            os._exit(0)
    return child


def see_off(children: Sequence[int]) -> None:
    """Wait until all of them have ended."""
    assert wait_until(lambda: all(map(has_ended, children)), LIMIT)

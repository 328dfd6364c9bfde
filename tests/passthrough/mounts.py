"""Mounts whose data passes the daemon by, and what their daemons say of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from overlayd.service.client import ask
from support.mounting import mounted
from support.processes import wait_until

SINCE = (6, 9)
LARGE = 200_000
"""Bytes. Smaller files that are only read go through the daemon where the kernel may keep them."""

WAYS = ("require", "off")
"""What `--passthrough` is given: past the daemon or not at all, and through it."""


def status(top: Path) -> dict[str, Any]:
    """What the daemon behind TOP says."""
    answer: dict[str, Any] = ask(os.lstat(top).st_dev, "status", 10)
    return answer


def told(top: Path) -> dict[str, Any]:
    """What it says of data: `on`, `obstacle`, `files`, `opened`, `refused`."""
    answer: dict[str, Any] = status(top)["passthrough"]
    return answer


def asked(top: Path, *operations: str) -> int:
    """How many requests there were so far, of OPERATIONS."""
    counts = status(top)["operations"]
    return sum(counts.get(operation, 0) for operation in operations)


@contextmanager
def going(way: str, place: Path, *dirs: str, options: Sequence[str] = ()) -> Iterator[Path]:
    """A mount of DIRS whose data goes one of WAYS, and which leaves no file registered."""
    with mounted(place, *dirs, options=["--passthrough", way, *options]) as top:
        yield top
        assert all_closed(top), told(top)


def passing(place: Path, *dirs: str, options: Sequence[str] = ()) -> AbstractContextManager[Path]:
    """One whose data passes the daemon by."""
    return going("require", place, *dirs, options=options)


def all_closed(top: Path) -> bool:
    return wait_until(lambda: told(top)["files"] == 0, seconds=5)


def passes(path: Path, top: Path, mode: str = "rb") -> bool:
    """Whether what PATH is opened for now passes the daemon of TOP by."""
    before = told(top)["opened"]
    with path.open(mode):
        return bool(told(top)["opened"] == before + 1)

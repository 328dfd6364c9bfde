"""How many requests something took, by the daemon's own counters."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from overlayd.service.client import ask
from support.live import is_watching
from support.mounting import mounted
from support.processes import in_child, wait_until

UNNOTICED = frozenset(("forget", "statfs", "getxattr"))
"""Nothing waits for the first; the others may be how the daemon is asked whether it lives."""

PAUSE = 0.3
"""Seconds, after which everything that the daemon may still do about a change has been done."""


class CountedMount:
    """A mount whose requests are counted; looked at from one child at a time."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self._device = os.lstat(top).st_dev

    def requests(self) -> Counter[str]:
        """All so far, by operation."""
        counted = self._status()["operations"].items()
        return Counter({name: n for name, n in counted if name not in UNNOTICED})

    def keeps_listings(self) -> bool:
        """Whether the optional extension is there, without which the kernel keeps no listings."""
        return not str(self._status()["wire"]).startswith("off")

    def _status(self) -> dict[str, Any]:
        answer: dict[str, Any] = ask(self._device, "status", 10)
        return answer

    def of(self, function: Callable[[], object], releases: bool = True) -> Counter[str]:
        """Those that FUNCTION, called in a child, takes.

        RELEASES come after close has returned; where nobody counts them they need no waiting for.
        """
        before = self.requests()
        in_child(function)
        time.sleep(0.02 if releases else 0)
        return self.requests() - before


@contextmanager
def counted(
    place: Path, *dirs: str, cache: str = "coherent", passthrough: str | None = None
) -> Iterator[CountedMount]:
    """A mount of DIRS with that CACHE."""
    options = ["--cache", cache, *(("--passthrough", passthrough) if passthrough else ())]
    with mounted(place, *dirs, options=options) as top:
        # The host is watched from shortly after the mount is there: until then little is kept.
        assert cache != "coherent" or wait_until(lambda: is_watching(top))
        yield CountedMount(top)


def only(requests: Counter[str], *operations: str) -> dict[str, int]:
    """What of REQUESTS is none of OPERATIONS, nor absent."""
    return {name: n for name, n in requests.items() if n and name not in operations}

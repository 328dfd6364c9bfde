"""Which devices let writers wait at the moment.

Writing takes no more than copying unless the host has more to write than it wants to keep in
memory, and then it slows down everybody who writes.
"""

import time

LONG_NS = 20_000_000
"""Copying the largest write takes a small part of it: whoever needs longer was made to wait."""
_EXPECTED_NS = 1_000_000_000


class Throttled:
    """Device numbers; each is in it for a second after it was noted."""

    def __init__(self) -> None:
        self._until: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._until)

    def note(self, device: int) -> None:
        """A write to *device* took long: the next ones are expected to do so, too."""
        self._until[device] = time.perf_counter_ns() + _EXPECTED_NS

    def __contains__(self, device: int) -> bool:
        if device in self._until and time.perf_counter_ns() > self._until[device]:
            del self._until[device]
        return device in self._until

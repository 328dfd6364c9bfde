"""How one thread wakes another that sleeps in poll(2), by eventfd(2)."""

import os
from contextlib import suppress

from overlayd.host.fs import Fd


class Bell:
    """Rung in any thread; its descriptor is readable until it is silenced."""

    def __init__(self) -> None:
        self._fd = Fd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))

    @property
    def descriptor(self) -> int:
        """To be polled for POLLIN."""
        return self._fd.number

    def ring(self) -> None:
        """Make the descriptor readable."""
        os.eventfd_write(self._fd.number, 1)

    def silence(self) -> None:
        """Make it unreadable, whether it was rung or not."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._fd.number)

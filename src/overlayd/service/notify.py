"""What the service manager is told: readiness, reloads, the end, and that requests are answered.

One datagram a message to the socket that $NOTIFY_SOCKET names (sd_notify(3)). Where that is unset
nothing is opened or sent, and without $WATCHDOG_USEC there is no timer either.
"""

import errno
import faulthandler
import logging
import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress

import trio

from overlayd.service.prober import Prober
from overlayd.table.guest_path import printable

log = logging.getLogger(__name__)

_SEND_SECONDS = 1.0
_BEATS_PER_INTERVAL = 3


class ServiceManager:
    """The service manager as we reach it; one that was not named is told nothing, at no cost.

    A call waits up to a second for a manager that does not keep up: make it from a thread. What
    cannot be delivered is logged and nothing else, since the mount matters more.
    """

    def __init__(self, address: str | None = None, watchdog_seconds: float | None = None) -> None:
        self._address = address
        self.watchdog_seconds = watchdog_seconds if address is not None else None
        """Seconds after which we are taken for dead without a sign of life; None for never."""

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> "ServiceManager":
        """The manager that *environment* names, taken out of it.

        It was meant for this process: a child must not speak for us.
        """
        address = environment.pop("NOTIFY_SOCKET", None)
        interval = environment.pop("WATCHDOG_USEC", "")
        process = environment.pop("WATCHDOG_PID", "")
        if address is not None and address[:1] not in ("/", "@"):
            log.warning("NOTIFY_SOCKET=%s: is no address of a local socket", printable(address))
            address = None
        is_ours = process in ("", str(os.getpid()))
        seconds = int(interval) / 1e6 if is_ours and interval.isdecimal() else 0
        return cls(address, seconds or None)

    def ready(self, status: str) -> None:
        """The namespace is live, for the first time or after `reloading`; *status* in words."""
        self._tell("READY=1", f"STATUS={printable(status)}")

    def reloading(self) -> None:
        """The configuration is being read anew; `ready` must follow, also where it was refused."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}")

    def stopping(self, seconds: float) -> None:
        """The end has begun and may take *seconds*, whatever was allowed for it."""
        self._tell("STOPPING=1", f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}", "STATUS=Unmounting")

    def answering(self) -> None:
        """A request was answered just now."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if self._address is None:
            return
        address = os.fsencode(self._address)
        if address[:1] == b"@":  # the abstract namespace (unix(7))
            address = b"\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as wire:
                wire.settimeout(_SEND_SECONDS)
                wire.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            log.warning("the service manager could not be told %s: %s", lines[0], error)


NOBODY = ServiceManager()
"""No service manager."""


async def feed_watchdog(manager: ServiceManager, target: str) -> None:
    """Tell *manager* that we live, for as long as requests to *target* really are answered.

    A request that hangs is waited for and no other one follows: then the manager hears nothing,
    and ends us with SIGABRT, on which the log gets the stack of every thread.
    """
    if manager.watchdog_seconds is None:
        return
    faulthandler.enable(2)
    # A limiter of its own: threads that wait for a slow source must not look like a dead daemon.
    limiter = trio.CapacityLimiter(1)
    pause = manager.watchdog_seconds / _BEATS_PER_INTERVAL
    while True:
        # One that has gone is followed by another.
        with suppress(OSError), Prober(target) as prober:
            while True:
                await trio.to_thread.run_sync(
                    _beat, manager, prober, target, abandon_on_cancel=True, limiter=limiter
                )
                await trio.sleep(pause)
        await trio.sleep(pause)


def _beat(manager: ServiceManager, prober: Prober, target: str) -> None:
    """One sign of life, if there is one. Raises OSError where *prober* has gone."""
    number = prober.ask()
    if number == errno.ENODATA:
        manager.answering()
    else:
        log.error("%s does not answer as it should: %s", printable(target), os.strerror(number))

"""Data past the daemon: the files that the kernel reads and writes for our guests by itself.

Every open is decided by the daemon; what follows then costs it nothing. See fuse-passthrough in the
kernel's documentation. Where anything is missing for it, data takes the ordinary path.
"""

import errno
import logging
from collections import Counter
from typing import Literal

from overlayd.errors import OverlaydError
from overlayd.host import device
from overlayd.host.backing import close_backing, may_open_backing, open_backing
from overlayd.host.fs import Fd
from overlayd.host.propagation import may_mount
from overlayd.kernel import wire

log = logging.getLogger(__name__)

Mode = Literal["auto", "off", "require"]
"""Where it can be had; never; or no mount without it."""

_SINCE = (6, 9)
_NO_RIGHT = "it needs CAP_SYS_ADMIN, which the daemon lacks"
_NOT_OFFERED = "this kernel was built without it (CONFIG_FUSE_PASSTHROUGH)"
SWITCHED_OFF = "switched off"
_REFUSALS = {
    errno.ELOOP: "their file system is stacked on another one",
    errno.EOPNOTSUPP: "their file system does not offer it",
}


def obstacle() -> str:
    """What stands in the way of it on this machine, as far as that shows before a mount; or empty.

    A kernel that was built without it does not show before.
    """
    if device.kernel_version() < _SINCE:
        return "it needs Linux {}.{} or newer".format(*_SINCE)
    if wire.absence():
        return f"the C extension is not in use: {wire.absence()}"
    return "" if may_mount() else _NO_RIGHT


def insist(mode: Mode, found: str) -> None:
    """Raise OverlaydError where *mode* demands what *found* stands in the way of."""
    if mode == "require" and found:
        raise OverlaydError(
            f"passthrough is required, and cannot be had: {found};"
            " mount with --passthrough auto to do without it"
        )


class Passthrough:
    """Registers files with the session of this process, as long as that can be done."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.refused: Counter[int] = Counter()
        """Files that had to take the ordinary path, by the errno that the kernel gave for it."""
        self._session = -1
        self._wanting: str | None = None

    @property
    def wanting(self) -> str:
        """Why the kernel does not offer it to this mount; empty where it does.

        To be asked once the two have agreed on what the mount is to be like.
        """
        if self._wanting is None:
            self._wanting = self._find_obstacle()
        return self._wanting

    def _find_obstacle(self) -> str:
        state = wire.state()
        self._session = state.session
        found = obstacle() or state.trouble
        if not found and not state.granted & wire.PASSTHROUGH:
            return SWITCHED_OFF if state.offered & wire.PASSTHROUGH else _NOT_OFFERED
        return found or ("" if may_open_backing(self._session) else _NO_RIGHT)

    @property
    def obstacle(self) -> str:
        """Why all data goes through the daemon; empty where it need not."""
        return SWITCHED_OFF if self.mode == "off" else self.wanting

    def register(self, fd: Fd) -> int:
        """The number of the file that *fd* names, 0 where the kernel does not take it."""
        if self.obstacle:
            return 0
        try:
            return open_backing(self._session, fd.number)
        except OSError as error:
            self._refuse(error)
            return 0

    def _refuse(self, error: OSError) -> None:
        number = error.errno or errno.EIO
        self.refused[number] += 1
        if self.refused[number] == 1:
            reason = _REFUSALS.get(number, (error.strerror or "").lower())
            level = logging.WARNING if self.mode == "require" else logging.INFO
            log.log(level, "some files are read and written through the daemon: %s", reason)

    def give_back(self, backing: int) -> None:
        """Take the registration back."""
        try:
            close_backing(self._session, backing)
        except OSError as error:  # the session has ended
            log.debug("backing file %d: %s", backing, error)

    def __str__(self) -> str:
        if self.obstacle:
            return f"through the daemon: {self.obstacle}"
        return "by the kernel, past the daemon"

"""The descriptor through which this process serves FUSE."""

import os
import re

_DEVICE = "/dev/fuse"
_OWN = "/proc/self/fd"


def find_session() -> int | None:
    """The descriptor that this process itself has opened on /dev/fuse, if it serves a mount.

    One that came through exec(2) is another's, which must not be told to forget what it knows.
    """
    for name in os.listdir(_OWN):
        try:
            is_ours = not os.get_inheritable(int(name))
            if is_ours and os.readlink(f"{_OWN}/{name}") == _DEVICE:
                return int(name)
        except OSError:  # the listing's own descriptor
            continue
    return None


def send(session: int, message: bytes) -> None:
    """Hand *message* to the kernel; it may wait for requests that this process has to answer.

    Raises OSError with what the kernel says to it.
    """
    os.write(session, message)


def kernel_version() -> tuple[int, int]:
    """Major and minor version of the running kernel."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)

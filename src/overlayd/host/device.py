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


def raise_read_ahead(device: int, kib: int) -> bool:
    """Have the kernel read *kib* KiB ahead in what is mounted as *device*; whether it now does.

    An administrator's choice of more stays. Without the right to, all is left as it is. It ends
    with the mount.
    """
    place = f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb"
    try:
        with open(place, "r+") as setting:
            if int(setting.read()) < kib:
                setting.seek(0)
                setting.write(str(kib))
    except (OSError, ValueError):  # not root, or sysfs is read-only, as in most containers
        return False
    return True

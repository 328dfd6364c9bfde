"""Who sees a mount: mount namespaces, and the peer groups by which mounts reach others.

See mount_namespaces(7). A mount made below a shared one is shared itself and appears in every
namespace that holds a peer.
"""

import os
from typing import NamedTuple

from overlayd.host.mounts import parse_mounts

INITIAL_PID_NAMESPACE = "pid:[4026531836]"
"""The kernel's constant for the namespace that the machine's own init is in."""

_CAP_SYS_ADMIN = 21


class Propagation(NamedTuple):
    """How a mount and the one that it lies on pass on what is mounted on them."""

    shared: bool
    """Whether the mount is shared, as one made on a shared mount becomes."""
    on_slave: bool
    """Whether the one below takes what is mounted from another namespace.

    It gives nothing back there, even if it is shared too, as systemd makes those of a unit.
    """


def propagation(mount_id: int) -> Propagation:
    """How the mount with *mount_id* propagates, as this process sees it."""
    with open("/proc/self/mountinfo", "rb") as table:
        lines = [line.partition(b" - ")[0].split(b" ") for line in table.read().splitlines()]
    tags = {int(fields[0]): b" ".join(fields[6:]) for fields in lines}
    parents = {int(fields[0]): int(fields[1]) for fields in lines}
    below = tags.get(parents.get(mount_id, 0), b"")
    return Propagation(
        shared=b"shared:" in tags.get(mount_id, b""),
        on_slave=b"master:" in below,
    )


def init_sees(device: int) -> bool | None:
    """Whether PID 1 has the file system *device* mounted; None where we may not know."""
    try:
        with open("/proc/1/mountinfo", "rb") as table:
            mounts = parse_mounts(table.read())
    except OSError:
        return None
    return any(mount.dev == device for mount in mounts)


def shares_namespace_with_init() -> bool | None:
    """Whether PID 1 is in our mount namespace; None where we may not know."""
    try:
        return os.readlink("/proc/1/ns/mnt") == os.readlink("/proc/self/ns/mnt")
    except OSError:
        return None


def is_in_container() -> bool:
    """Whether PID 1, as we see it, is not the machine's own init."""
    try:
        return os.readlink("/proc/self/ns/pid") != INITIAL_PID_NAMESPACE
    except OSError:
        return False


def may_mount() -> bool:
    """Whether this process may mount by itself, without a set-uid helper (capabilities(7))."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as status:
            words = [line.split() for line in status if line.startswith("CapEff:")]
    except OSError:
        return os.geteuid() == 0
    return bool(words) and bool(int(words[0][1], 16) >> _CAP_SYS_ADMIN & 1)

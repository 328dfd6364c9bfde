"""Which mounts are overlayd's, and how the kernel answers for one that is dead."""

import errno

from overlayd.host.mounts import FILE_SYSTEM_TYPE, Mount
from overlayd.table.guest_path import printable

DEAD_ERRORS = frozenset((errno.ENOTCONN, errno.ECONNABORTED))
"""What the kernel answers for a mount whose daemon is gone; the latter to what was under way."""


def not_ours(mount: Mount) -> str:
    """What a target holds where it holds another's *mount*, as the end of an error."""
    return f"holds a mount of type {printable(mount.fs_type)}, which is none of overlayd's"


def is_ours(mount: Mount) -> bool:
    """Whether overlayd made *mount*: by its type, or where `-o subtype=` hides that, its record."""
    if mount.fs_type == FILE_SYSTEM_TYPE:
        return True
    from overlayd.service.registry import has_record  # seldom needed, and `health` is in a hurry

    return has_record(mount.dev)

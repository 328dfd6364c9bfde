"""Which mounts are overlayd's, and how the kernel answers for one that is dead."""

import errno

from overlayd.host.mounts import FILE_SYSTEM_TYPE, Mount

DEAD_ERRORS = frozenset((errno.ENOTCONN, errno.ECONNABORTED))
"""What the kernel answers for a mount whose daemon is gone; the latter to what was under way."""


def is_ours(mount: Mount) -> bool:
    """Whether overlayd made *mount*: by its type, or where `-o subtype=` hides that, its record."""
    if mount.fs_type == FILE_SYSTEM_TYPE:
        return True
    from overlayd.service.registry import has_record  # seldom needed, and `health` is in a hurry

    return has_record(mount.dev)

"""Node numbers, 53 bits (above which JavaScript runtimes round), and what they stand for."""

import functools
from typing import NamedTuple

from overlayd.core.assembly import Attachment, path_seed
from overlayd.host.fs import HostStat

TYPE = 0o170000
"""S_IFMT, the bits of a mode that tell the file type."""
DIRECTORY = 0o040000
"""S_IFDIR, the file type of a directory."""
LINK = 0o120000
"""S_IFLNK, the file type of a symbolic link."""

ROOT_NUMBER = 1
NUMBER_LIMIT = 1 << 53

_WORD = (1 << 64) - 1
_SPREAD = 0x13C6EF372FE94F  # odd, of 53 bits


class NodeKey(NamedTuple):
    """What makes two host objects one node.

    A file is one node under all its names, so only (dev, ino) count. A directory is one node for
    each mount that shows it, since the kernel cannot give one directory two parents; the host's
    mount id tells apart a directory and a bind mount of it inside one source. What a symbolic link
    says depends on the directory it lies in, so that directory's number is part of its key.
    """

    dev: int
    ino: int
    scope: int = 0
    """For directories the mount's seed; for symbolic links minus the parent's number."""
    host_mount: int = 0


def key_of(parent: int, mount: Attachment | None, status: HostStat) -> NodeKey:
    """The key of what was found in the directory with number *parent*, provided by *mount*."""
    file_type = status.mode & TYPE
    if file_type == DIRECTORY:
        assert mount is not None
        return NodeKey(status.dev, status.ino, mount.seed, status.mount_id)
    return NodeKey(status.dev, status.ino, -parent if file_type == LINK else 0)


def natural_number(key: NodeKey) -> int:
    """The number of a host object, unless that is taken."""
    dev, ino, scope, _ = key
    return spread(ino, origin(scope if scope > 0 else 0, dev))


def path_number(path: tuple[bytes, ...]) -> int:
    """The number of what only the mount table decides, at *path*, unless that is taken."""
    return scramble(path_seed(b"path", path), 0, 0)


def scramble(seed: int, dev: int, ino: int) -> int:
    """Spread (dev, ino) over 53 bits; two numbers rarely meet, and the table of nodes parts them.

    Within one file system they never do, as long as its inode numbers have 53 bits: multiplying by
    an odd number is a permutation.
    """
    return spread(ino, origin(seed, dev))


def spread(ino: int, begin: int) -> int:
    """The number for *ino* in a file system whose numbers *begin* where `origin` says."""
    number = (ino * _SPREAD + begin) & (NUMBER_LIMIT - 1)
    return number if number > ROOT_NUMBER else number + 2


@functools.lru_cache(maxsize=1024)
def origin(seed: int, dev: int) -> int:
    """Where the numbers of one file system begin, far from another's."""
    word = (dev * 0xC2B2AE3D27D4EB4F + seed) & _WORD
    word = ((word ^ (word >> 32)) * 0xD6E8FEB86659FD93) & _WORD
    return word ^ (word >> 32)


def following(number: int) -> int:
    """The number to try where *number* is taken."""
    return number + 1 if number + 1 < NUMBER_LIMIT else 2

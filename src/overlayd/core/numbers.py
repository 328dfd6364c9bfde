"""Node numbers: 53 bits, above which JavaScript runtimes round, worked out from what a node is."""

import functools

ROOT_NUMBER = 1
NUMBER_LIMIT = 1 << 53

_WORD = (1 << 64) - 1
_SPREAD = 0x13C6EF372FE94F  # odd, of 53 bits


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

"""Errors of both kinds: what is said to a person, and what is answered to the kernel.

`OverlaydError` and its children carry one line for the operator and the exit status that goes
with it (docs/troubleshooting.md); only `cli` prints them. The small constructors below make the
`OSError`s that the core raises, so that no errno number stands in its logic.

    OverlaydError         exit 1: it was understood and failed
      UsageError          exit 2: the command line or the configuration is wrong
"""

import errno
import os


class OverlaydError(Exception):
    """Something a person asked for failed; the message is one line that names the cure."""

    exit_code = 1


class UsageError(OverlaydError):
    """The command line, the table of preopens or the configuration file is wrong."""

    exit_code = 2


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def erofs() -> OSError:
    """A change through a read-only preopen, of a read-only inode, or in a synthetic directory."""
    return _os_error(errno.EROFS)


def ebusy() -> OSError:
    """A mount point, or a directory above one, would be moved, replaced or removed."""
    return _os_error(errno.EBUSY)


def eexist() -> OSError:
    """The name is taken by a mount point or a synthetic directory."""
    return _os_error(errno.EEXIST)


def exdev() -> OSError:
    """A link or rename would cross from one mount point to another."""
    return _os_error(errno.EXDEV)


def enoent() -> OSError:
    """There is no such name."""
    return _os_error(errno.ENOENT)


def estale() -> OSError:
    """The host object behind a node is gone; the kernel looks the name up again (open(2))."""
    return _os_error(errno.ESTALE)


def enametoolong() -> OSError:
    """A name over 255 bytes, or a link target that no longer fits PATH_MAX once rebased."""
    return _os_error(errno.ENAMETOOLONG)


def einval() -> OSError:
    """A name or flag that no file system accepts."""
    return _os_error(errno.EINVAL)


def ebadf() -> OSError:
    """A handle that was never given out, or is closed, or is not open for this."""
    return _os_error(errno.EBADF)


def enotdir() -> OSError:
    """A directory was needed."""
    return _os_error(errno.ENOTDIR)


def eisdir() -> OSError:
    """Anything but a directory was needed."""
    return _os_error(errno.EISDIR)


def eloop() -> OSError:
    """A symbolic link where an operation may not follow one."""
    return _os_error(errno.ELOOP)


def eacces() -> OSError:
    """The object exists, but not to be opened through the namespace (a device, a socket)."""
    return _os_error(errno.EACCES)

"""Files that the kernel reads and writes for a FUSE session by itself (passthrough, Linux 6.9)."""

import fcntl
import os
import struct

_OPEN = 0x4010E501  # FUSE_DEV_IOC_BACKING_OPEN: int32 fd, uint32 flags, uint64 reserved
_CLOSE = 0x4004E502  # FUSE_DEV_IOC_BACKING_CLOSE: uint32 id


def open_backing(session: int, fd: int) -> int:
    """Register the file *fd* is open on with the FUSE *session*; the number it has there, above 0.

    The kernel keeps the file open from then on, and reads and writes it with the rights that *fd*
    was opened with. Raises OSError: EPERM without CAP_SYS_ADMIN or where passthrough was not
    agreed upon, ELOOP for a file on a file system that is stacked too high, EOPNOTSUPP for what is
    no regular file.
    """
    number: int = fcntl.ioctl(session, _OPEN, bytearray(struct.pack("=iIQ", fd, 0, 0)))
    return number


def may_open_backing(session: int) -> bool:
    """Whether the kernel lets this process register files at all; root of a container may not."""
    try:
        with open(os.memfd_create("passthrough"), "rb") as file:
            close_backing(session, open_backing(session, file.fileno()))
    except OSError:
        return False
    return True


def close_backing(session: int, backing: int) -> None:
    """Take the registration back; what is open through it stays so. Raises OSError (ENOENT)."""
    fcntl.ioctl(session, _CLOSE, bytearray(struct.pack("=I", backing)))

"""System calls that fail in this process and all that it starts from now on (seccomp(2))."""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000

FANOTIFY_INIT = {"x86_64": 300, "aarch64": 262}


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def refuse(call: int, number: int = errno.EPERM) -> None:
    """Have system call CALL answered with the errno NUMBER. It cannot be taken back."""
    steps = [
        struct.pack("=HBBI", _LOAD, 0, 0, 0),  # the number of the call
        struct.pack("=HBBI", _EQUAL, 0, 1, call),
        struct.pack("=HBBI", _RETURN, 0, 0, _ERRNO | number),
        struct.pack("=HBBI", _RETURN, 0, 0, _ALLOW),
    ]
    program = _Program(len(steps), b"".join(steps))
    libc = ctypes.CDLL(None, use_errno=True)
    zero, one = ctypes.c_ulong(0), ctypes.c_ulong(1)
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, one, zero, zero, zero) == 0
    assert libc.prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_FILTER), ctypes.byref(program)) == 0


def refuse_fanotify(number: int = errno.EPERM) -> None:
    """As where a daemon may not use it."""
    refuse(FANOTIFY_INIT[platform.machine()], number)

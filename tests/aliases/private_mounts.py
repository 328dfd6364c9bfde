"""Host mounts that nobody else sees: made in a process of their own, gone when it ends."""

from __future__ import annotations

import ctypes
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from support.mounting import unescape
from support.processes import in_child

T = TypeVar("T")

_CLONE_NEWNS = 0x20000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_OF_TESTS = re.compile(r"/tmp/(pytest-of|overlayd-test)-[^/]+/.")
_FUSE = os.makedev(10, 229)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [*(ctypes.c_char_p,) * 3, ctypes.c_ulong, ctypes.c_char_p]


def in_private_mounts(function: Callable[[], T], *, seconds: float = 60, bare: bool = False) -> T:
    """What FUNCTION returns in a child whose mounts, and those it makes, are its own.

    BARE, where nothing of what is mounted now is needed, and nothing is to happen to the mounts.
    """
    return in_child(lambda: _apart(function, bare), seconds=seconds)


def _apart(function: Callable[[], T], bare: bool) -> T:
    set_apart()
    if bare:
        let_go_of_copies()
    return function()


def set_apart() -> None:
    """From now on this thread, and what it starts, mounts where nobody else sees it."""
    _check(_libc.unshare(_CLONE_NEWNS))
    _check(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None))


def let_go_of_copies() -> None:
    """Take overlayd's mounts, and all that tests have made, out of a mount namespace that is new.

    It has got a copy of every mount. While that is there the daemon behind it lives, and whoever
    unmounts it elsewhere waits in vain; when its target is removed elsewhere it goes from here too,
    which wakes whoever watches the mounts.
    """
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        mount, _, file_system = line.partition(" - ")
        place = unescape(mount.split()[4])
        if file_system.startswith("fuse.overlayd ") or _OF_TESTS.match(place):
            # What was removed elsewhere a moment ago is gone already.
            _libc.umount2(os.fsencode(place), _MNT_DETACH)


def bind(source: Path, target: Path) -> None:
    """`mount --bind`; TARGET is made, a file where SOURCE is one."""
    if source.is_dir():
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    _check(_libc.mount(bytes(source), bytes(target), None, _MS_BIND, None))


def mount_tmpfs(target: Path) -> None:
    """A file system of its own on TARGET, which is made."""
    target.mkdir(exist_ok=True)
    _check(_libc.mount(b"tmpfs", bytes(target), b"tmpfs", 0, b"mode=755"))


def mount_overlay(target: Path, lower: Path, upper: Path, work: Path, options: str = "") -> None:
    """An overlayfs on TARGET, which is made."""
    target.mkdir(exist_ok=True)
    settings = f"lowerdir={lower},upperdir={upper},workdir={work}{options}"
    _check(_libc.mount(b"overlay", bytes(target), b"overlay", 0, settings.encode()))


def open_fuse_device(place: Path) -> None:
    """Put a device that everybody may open over /dev/fuse, as udev makes it; it lies in PLACE."""
    mount_tmpfs(place)
    os.mknod(place / "fuse", stat.S_IFCHR | 0o666, _FUSE)
    (place / "fuse").chmod(0o666)
    _check(_libc.mount(bytes(place / "fuse"), b"/dev/fuse", None, _MS_BIND, None))


def _check(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

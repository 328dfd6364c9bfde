"""The calls that `os` lacks or spells without a descriptor: statx(2), renameat2(2) and kin.

Thin bindings with the kernel's own names and constants; meaning is added in `fs`.
Each raises OSError with the errno the call left behind.
"""

import ctypes
import os
import platform
import signal
import sys

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EACCESS = 0x200
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_STATX_DONT_SYNC = 0x4000
_AT_HANDLE_FID = 0x200

STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800
STATX_MNT_ID = 0x1000
STATX_MNT_ID_UNIQUE = 0x4000
STATX_SIZE = 256

FAN_CLOEXEC, FAN_NONBLOCK = 0x1, 0x2
FAN_REPORT_DFID_NAME = 0xC00
FAN_MARK_ADD, FAN_MARK_REMOVE, FAN_MARK_ONLYDIR = 0x1, 0x2, 0x8
FAN_MARK_IGNORED_SURV_MODIFY, FAN_MARK_EVICTABLE, FAN_MARK_IGNORE = 0x40, 0x200, 0x400
FAN_MODIFY, FAN_Q_OVERFLOW, FAN_EVENT_ON_CHILD = 0x2, 0x4000, 0x8000000
FAN_EVENT_INFO_TYPE_DFID_NAME = 2

UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2

_SYS_SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159, "ppc64le": 81, "s390x": 206}

_PR_SET_PDEATHSIG = 1
_SYS_OPEN_TREE, _SYS_MOUNT_SETATTR = 428, 442  # on every machine
_OPEN_TREE_CLONE = 1
_MOUNT_ATTR_ATIME, _MOUNT_ATTR_NOATIME = 0x70, 0x10
_HANDLE_HEAD, _HANDLE_BYTES = 8, 128

_CAPABILITY_VERSION_3 = 0x20080522
CAP_SYS_RESOURCE = 24

_libc = ctypes.CDLL(None, use_errno=True)
_long = ctypes.c_long


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


_libc.statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]
_libc.renameat2.argtypes = [
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
]
_libc.fchownat.argtypes = [
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
    ctypes.c_uint,
    ctypes.c_int,
]
_libc.utimensat.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]
_libc.faccessat.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.name_to_handle_at.argtypes = [
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int,
]
_libc.open_by_handle_at.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
_libc.fanotify_init.argtypes = [ctypes.c_uint, ctypes.c_uint]
_libc.fanotify_mark.argtypes = [
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_uint64,
    ctypes.c_int,
    ctypes.c_char_p,
]
_libc.setfsuid.argtypes = [ctypes.c_uint]
_libc.setfsgid.argtypes = [ctypes.c_uint]


def _check(result: int) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def statx(directory: int, name: bytes, flags: int) -> bytes:
    """The raw `struct statx` of *name* in *directory*, or of *directory* with AT_EMPTY_PATH."""
    buffer = ctypes.create_string_buffer(STATX_SIZE)
    mask = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID
    if _libc.statx(directory, name, flags, mask, buffer) == -1:
        _check(-1)
    return buffer.raw


def unique_mount_id(path: bytes) -> int | None:
    """The number of the mount that *path* is on, which none gets again; None before Linux 6.8."""
    buffer = ctypes.create_string_buffer(STATX_SIZE)
    flags = AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT | AT_SYMLINK_NOFOLLOW
    _check(_libc.statx(AT_FDCWD, path, flags, STATX_MNT_ID_UNIQUE, buffer))
    mask = int.from_bytes(buffer.raw[:4], sys.byteorder)  # stx_mask, and stx_mnt_id below
    if not mask & STATX_MNT_ID_UNIQUE:
        return None
    return int.from_bytes(buffer.raw[144:152], sys.byteorder)


def renameat2(old_dir: int, old: bytes, new_dir: int, new: bytes, flags: int) -> None:
    """renameat2(2)."""
    _check(_libc.renameat2(old_dir, old, new_dir, new, flags))


def fchown_empty_path(fd: int, uid: int, gid: int) -> None:
    """Change the owner of the object *fd* names, O_PATH or not; -1 leaves an id alone."""
    _check(_libc.fchownat(fd, b"", uid & 0xFFFFFFFF, gid & 0xFFFFFFFF, AT_EMPTY_PATH))


def utimens_empty_path(fd: int, times: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """Set (atime, mtime) of the object *fd* names (Linux 5.8), each (seconds, nanoseconds)."""
    array = (_Timespec * 2)(_Timespec(*times[0]), _Timespec(*times[1]))
    _check(_libc.utimensat(fd, b"", ctypes.byref(array), AT_EMPTY_PATH))


def faccess_empty_path(fd: int, mode: int) -> None:
    """access(2) on the object *fd* names, with the file system ids in force."""
    _check(_libc.faccessat(fd, b"", mode, AT_EACCESS | AT_EMPTY_PATH))


def umount2(target: bytes, flags: int) -> None:
    """umount2(2)."""
    _check(_libc.umount2(target, flags))


def open_tree_clone(fd: int) -> int:
    """A descriptor (O_PATH) of what *fd* names, on a new mount that is attached nowhere."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | AT_EMPTY_PATH
    made = int(_libc.syscall(_long(_SYS_OPEN_TREE), _long(fd), b"", _long(flags)))
    _check(made)
    return made


def keep_no_atime(fd: int) -> None:
    """Have the mount whose root *fd* names keep no access times (mount_setattr(2))."""
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_NOATIME, _MOUNT_ATTR_ATIME, 0, 0)  # set, clear
    size = _long(ctypes.sizeof(attributes))
    words = (_long(fd), b"", _long(AT_EMPTY_PATH), attributes, size)
    _check(_libc.syscall(_long(_SYS_MOUNT_SETATTR), *words))


def name_to_handle(fd: int, flags: int = 0) -> tuple[int, bytes]:
    """The id of the mount that *fd* names something on, and a handle of that in its file system."""
    room = _HANDLE_BYTES.to_bytes(4, sys.byteorder)
    buffer = ctypes.create_string_buffer(room, _HANDLE_HEAD + _HANDLE_BYTES)
    mount_id = ctypes.c_int()
    place = ctypes.byref(mount_id)
    _check(_libc.name_to_handle_at(fd, b"", buffer, place, flags | AT_EMPTY_PATH))
    return mount_id.value, buffer.raw


def name_to_fid(fd: int) -> bytes:
    """The handle by which fanotify tells what *fd* names, no longer than it is (Linux 6.5)."""
    _, handle = name_to_handle(fd, _AT_HANDLE_FID)
    return handle[: _HANDLE_HEAD + int.from_bytes(handle[:4], sys.byteorder)]


def file_system_id(fd: int) -> bytes:
    """The number by which fanotify tells the file system of what *fd* names."""
    both = os.fstatvfs(fd).f_fsid  # two ints, the first in the low half
    halves = (both & 0xFFFFFFFF, both >> 32 & 0xFFFFFFFF)
    return b"".join(half.to_bytes(4, sys.byteorder) for half in halves)


def fanotify_init(flags: int) -> int:
    """fanotify_init(2): the descriptor of a new group."""
    made = int(_libc.fanotify_init(flags, os.O_RDONLY))
    _check(made)
    return made


def fanotify_mark(group: int, flags: int, mask: int, path: bytes) -> None:
    """fanotify_mark(2)."""
    _check(_libc.fanotify_mark(group, flags, mask, AT_FDCWD, path))


def open_by_handle(mount: int, handle: bytes, flags: int) -> int:
    """A descriptor of what *handle* names on the mount that *mount* names a file of."""
    opened = int(_libc.open_by_handle_at(mount, ctypes.create_string_buffer(handle), flags))
    _check(opened)
    return opened


def setfsuid(uid: int) -> int:
    """Set this thread's file system uid; the former one is returned, errors are not reported."""
    return int(_libc.setfsuid(uid)) & 0xFFFFFFFF


def setfsgid(gid: int) -> int:
    """Like `setfsuid`, for the gid."""
    return int(_libc.setfsgid(gid)) & 0xFFFFFFFF


def can_set_thread_groups() -> bool:
    """Whether this machine's number for setgroups(2) is known here."""
    return platform.machine() in _SYS_SETGROUPS


def set_thread_groups(groups: tuple[int, ...]) -> None:
    """setgroups(2) for this thread alone: the libc function would change every thread."""
    array = (ctypes.c_uint * len(groups))(*groups)
    number = _SYS_SETGROUPS[platform.machine()]
    _check(_libc.syscall(_long(number), _long(len(groups)), array))


def end_with_parent() -> None:
    """Have this process killed when its parent ends from now on (prctl(2), PR_SET_PDEATHSIG)."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, _long(signal.SIGKILL), _long(0), _long(0), _long(0)))


def drop_capability(number: int) -> None:
    """Take a capability out of this thread's effective set, and of those it starts from now on."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: low words, then high ones
    _check(_libc.capget(header, sets))
    sets[3 * (number // 32)] &= ~(1 << number % 32)
    _check(_libc.capset(header, sets))

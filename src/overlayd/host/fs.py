"""Host objects by (directory descriptor, single name) or by an opened inode; never by path.

Every function takes a descriptor and at most one name, follows no symbolic link, and raises
OSError with the host's errno. `open_ambient` is the one door from plain paths, for what the
operator typed. O_PATH descriptors are turned into working ones, and reached by calls that know
no descriptor, through the process's own descriptor directory (proc(5), /proc/self/fd).

Status is asked for without making a network or FUSE server answer (AT_STATX_DONT_SYNC) unless
*fresh* is given: a name may turn out to be overlayd's own mount, and a daemon that waits for
itself hangs its guests and every `ls` beside them.
"""

import errno
import fcntl
import os
import stat
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from overlayd.host import libc

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2

_STATX = struct.Struct("=IIQIIIHxxQQQQ qIxxxx qIxxxx qIxxxx qIxxxx IIII Q")
_NANOSECONDS = 1_000_000_000
_TYPE = 0o170000  # S_IFMT(mode) without a call
_MODE = 0o177777  # the kernel's umode_t: what does not fit it means nothing


class Fd:
    """A descriptor shared by reference: it closes when its last holder lets go of it.

    The cache, a handle and an operation under way may hold one `Fd` at once; dropping it from the
    cache can therefore never close a number that someone is about to use (and that the kernel
    might by then have given to another file).
    """

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def close(self) -> None:
        """Close now; for holders that know themselves to be the last. Raises what close(2) does."""
        number, self.number = self.number, -1
        if number >= 0:
            os.close(number)

    def __del__(self) -> None:
        if self.number >= 0:
            try:  # noqa: SIM105 - each open file and directory pays for this
                os.close(self.number)
            except OSError:  # a network file system's late write error: flush has told it
                pass


class HostStat(NamedTuple):
    """What statx(2) says; times in nanoseconds, size in bytes, blocks of 512 bytes."""

    dev: int
    ino: int
    mount_id: int
    birth_ns: int
    """Time of creation, 0 where the file system does not tell; with *ino*, detects its reuse."""
    mode: int
    nlink: int
    uid: int
    gid: int
    rdev: int
    size: int
    blocks: int
    blksize: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int

    @property
    def file_type(self) -> int:
        """The S_IFMT bits."""
        return self.mode & _TYPE

    @property
    def is_dir(self) -> bool:
        """Whether this is a directory."""
        return self.mode & _TYPE == stat.S_IFDIR


def _unpack(raw: bytes) -> HostStat:
    # fmt: off
    (_, blksize, _, nlink, uid, gid, mode, ino, size, blocks, _,
     atime, atime_ns, btime, btime_ns, ctime, ctime_ns, mtime, mtime_ns,
     rdev_major, rdev_minor, dev_major, dev_minor, mount_id) = _STATX.unpack_from(raw)
    # fmt: on
    return HostStat(
        os.makedev(dev_major, dev_minor),
        ino,
        mount_id,
        btime * _NANOSECONDS + btime_ns,
        mode,
        nlink,
        uid,
        gid,
        os.makedev(rdev_major, rdev_minor),
        size,
        blocks,
        blksize,
        atime * _NANOSECONDS + atime_ns,
        mtime * _NANOSECONDS + mtime_ns,
        ctime * _NANOSECONDS + ctime_ns,
    )


_STAT_CHILD = libc.AT_SYMLINK_NOFOLLOW | libc.AT_NO_AUTOMOUNT
_STAT_FD = libc.AT_EMPTY_PATH | libc.AT_NO_AUTOMOUNT


def _statx_by_ctypes(directory: int, name: bytes, flags: int, _kind: type[HostStat]) -> HostStat:
    return _unpack(libc.statx(directory, name, flags))


def _hold_by_os(directory: int, name: bytes, kind: type[HostStat]) -> tuple[int, HostStat]:
    number = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        return number, _statx(number, b"", _STAT_FD | libc.AT_STATX_DONT_SYNC, kind)
    except BaseException:
        os.close(number)
        raise


def _statx_many_by_ctypes(
    directory: int, names: list[bytes], flags: int, kind: type[HostStat]
) -> list[HostStat | None]:
    answers: list[HostStat | None] = []
    for name in names:
        try:
            answers.append(_statx_by_ctypes(directory, name, flags, kind))
        except OSError:
            answers.append(None)
    return answers


_Hold = Callable[[int, bytes, type[HostStat]], tuple[int, HostStat]]
_Statx = Callable[[int, bytes, int, type[HostStat]], HostStat]
_StatxMany = Callable[[int, list[bytes], int, type[HostStat]], list[HostStat | None]]
_statx: _Statx = _statx_by_ctypes
_statx_many: _StatxMany = _statx_many_by_ctypes
_hold: _Hold = _hold_by_os
with suppress(ImportError):  # it could not be built
    from overlayd.host import _calls

    _statx, _statx_many, _hold = _calls.statx, _calls.statx_many, _calls.hold


def stat_child(directory: Fd, name: bytes, *, fresh: bool = False) -> HostStat:
    """Status of *name* in *directory*; of a link itself, of a mounted file system's root."""
    flags = _STAT_CHILD if fresh else _STAT_CHILD | libc.AT_STATX_DONT_SYNC
    return _statx(directory.number, name, flags, HostStat)


def stat_children(directory: Fd, names: list[bytes]) -> list[HostStat | None]:
    """Status of each of *names* in *directory* as `stat_child` gives it, None where it raises."""
    flags = _STAT_CHILD | libc.AT_STATX_DONT_SYNC
    return _statx_many(directory.number, names, flags, HostStat)


def stat_fd(fd: Fd, *, fresh: bool = False) -> HostStat:
    """Status of what *fd* names, O_PATH or not."""
    flags = _STAT_FD if fresh else _STAT_FD | libc.AT_STATX_DONT_SYNC
    return _statx(fd.number, b"", flags, HostStat)


# -- opening ------------------------------------------------------------------------------------


def open_ambient(path: str) -> Fd:
    """An O_PATH descriptor of a path the operator typed; links in it are the operator's own."""
    return Fd(os.open(path, os.O_PATH | os.O_CLOEXEC))


def open_child(directory: Fd, name: bytes) -> Fd:
    """An O_PATH descriptor of *name* in *directory*: it pins the inode and allows nothing yet."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    return Fd(os.open(name, flags, dir_fd=directory.number))


def hold_child(directory: Fd, name: bytes) -> tuple[Fd, HostStat]:
    """The same with the status of what was opened, as `stat_fd` gives it."""
    number, status = _hold(directory.number, name, HostStat)
    return Fd(number), status


def create_child(directory: Fd, name: bytes, flags: int, mode: int) -> Fd:
    """Create and open a regular file; EEXIST whatever already has the name, a link included."""
    flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
    return Fd(os.open(name, flags, mode, dir_fd=directory.number))


def reopen(fd: Fd, flags: int) -> Fd:
    """A working descriptor of the very inode *fd* names, opened with *flags*."""
    return Fd(os.open(_magic(fd), flags | os.O_CLOEXEC | os.O_NOCTTY))


def pin(fd: Fd) -> Fd:
    """An O_PATH descriptor of the inode *fd* names: whoever keeps it keeps nothing open."""
    return Fd(os.open(_magic(fd), os.O_PATH | os.O_CLOEXEC))


def check_direct(fd: Fd) -> None:
    """Raise OSError (EINVAL) where the file *fd* names cannot be read past the page cache."""
    reopen(fd, os.O_RDONLY | os.O_DIRECT)


def spare_atime(fd: Fd) -> None:
    """Read through *fd* without touching the access time, where the kernel allows it."""
    try:
        flags = fcntl.fcntl(fd.number, fcntl.F_GETFL)
        fcntl.fcntl(fd.number, fcntl.F_SETFL, flags | os.O_NOATIME)
    except OSError:
        pass


def _magic(fd: Fd) -> str:
    return f"/proc/self/fd/{fd.number}"


def present_path(fd: Fd) -> bytes:
    """Where the object *fd* names lies at this moment, as the kernel says; never to be opened.

    Raises ENAMETOOLONG where that is longer than PATH_MAX.
    """
    return os.readlink(b"/proc/self/fd/%d" % fd.number)


def await_names(directory: Fd, name: bytes) -> bool:
    """Wait for whatever changes names in *directory* at this moment; whether *name* is there.

    Renaming onto itself with RENAME_NOREPLACE always fails, with the directory's lock held.
    """
    try:
        rename(directory, name, directory, name, RENAME_NOREPLACE)
    except FileExistsError:
        return True
    except OSError:
        return False
    return False


# -- directories --------------------------------------------------------------------------------


def list_names(directory: Fd) -> list[bytes]:
    """All names in a directory opened for reading, without `.` and `..`, in the host's order."""
    os.lseek(directory.number, 0, os.SEEK_SET)
    # As os.fsencode does it, without asking each name for its type.
    encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
    return [name.encode(encoding, errors) for name in os.listdir(directory.number)]


def make_dir(directory: Fd, name: bytes, mode: int) -> None:
    """mkdirat(2)."""
    os.mkdir(name, mode, dir_fd=directory.number)


def make_node(directory: Fd, name: bytes, mode: int, device: int) -> None:
    """mknodat(2): a FIFO, socket, device or empty regular file, as the type in *mode* says."""
    os.mknod(name, mode & _MODE, device, dir_fd=directory.number)


def make_symlink(directory: Fd, name: bytes, target: bytes) -> None:
    """symlinkat(2); *target* is stored byte for byte."""
    os.symlink(target, name, dir_fd=directory.number)


def make_link(fd: Fd, directory: Fd, name: bytes) -> None:
    """Give the inode *fd* names another name; ENOENT if it has none left."""
    # AT_SYMLINK_FOLLOW resolves the magic link and stops at the inode, itself a link or not.
    os.link(_magic(fd), name, dst_dir_fd=directory.number, follow_symlinks=True)


def remove_file(directory: Fd, name: bytes) -> None:
    """unlinkat(2) of anything but a directory."""
    os.unlink(name, dir_fd=directory.number)


def remove_dir(directory: Fd, name: bytes) -> None:
    """unlinkat(2) of an empty directory."""
    os.rmdir(name, dir_fd=directory.number)


def rename(old_dir: Fd, old: bytes, new_dir: Fd, new: bytes, flags: int) -> None:
    """renameat2(2); links are moved, never followed."""
    if flags:
        libc.renameat2(old_dir.number, old, new_dir.number, new, flags)
    else:
        os.rename(old, new, src_dir_fd=old_dir.number, dst_dir_fd=new_dir.number)


def read_link(fd: Fd) -> bytes:
    """The bytes stored in the symbolic link that an O_PATH descriptor names."""
    return os.readlink(b"", dir_fd=fd.number)


# -- attributes ---------------------------------------------------------------------------------


def change_mode(fd: Fd, mode: int) -> None:
    """chmod(2) by inode; EOPNOTSUPP for a symbolic link."""
    os.chmod(_magic(fd), mode)


def change_owner(fd: Fd, uid: int, gid: int) -> None:
    """chown(2) by inode, links included; -1 leaves an id alone."""
    libc.fchown_empty_path(fd.number, uid, gid)


def truncate(fd: Fd, size: int) -> None:
    """truncate(2) by inode: the file system ids in force must allow writing."""
    os.truncate(_magic(fd), size)


def truncate_open(fd: Fd, size: int) -> None:
    """ftruncate(2): the right to write was given when *fd* was opened."""
    os.ftruncate(fd.number, size)


def change_times(fd: Fd, atime_ns: int | None, mtime_ns: int | None) -> None:
    """utimensat(2) by inode, links included; None leaves a time alone (UTIME_OMIT)."""
    libc.utimens_empty_path(fd.number, (_timespec(atime_ns), _timespec(mtime_ns)))


def touch(fd: Fd) -> None:
    """Set both times to now, which write permission suffices for (utimensat(2), UTIME_NOW)."""
    libc.utimens_empty_path(fd.number, ((0, libc.UTIME_NOW), (0, libc.UTIME_NOW)))


def _timespec(nanoseconds: int | None) -> tuple[int, int]:
    if nanoseconds is None:
        return 0, libc.UTIME_OMIT
    return divmod(nanoseconds, _NANOSECONDS)


def check_access(fd: Fd, mode: int) -> None:
    """access(2) by inode for the file system ids in force; raises EACCES where it says no."""
    libc.faccess_empty_path(fd.number, mode)


def set_xattr(fd: Fd, name: bytes, value: bytes) -> None:
    """setxattr(2) by inode."""
    os.setxattr(_magic(fd), name, value)


def get_xattr(fd: Fd, name: bytes) -> bytes:
    """getxattr(2) by inode."""
    return os.getxattr(_magic(fd), name)


def list_xattrs(fd: Fd) -> list[bytes]:
    """listxattr(2) by inode."""
    return [os.fsencode(name) for name in os.listxattr(_magic(fd))]


def remove_xattr(fd: Fd, name: bytes) -> None:
    """removexattr(2) by inode."""
    os.removexattr(_magic(fd), name)


def file_system_status(fd: Fd) -> os.statvfs_result:
    """statvfs(3) of the file system *fd* lies on."""
    return os.fstatvfs(fd.number)


def free_bytes(fd: Fd) -> int:
    """How much room anybody may use on the file system *fd* lies on."""
    status = os.fstatvfs(fd.number)
    return status.f_bavail * status.f_frsize


# -- data ---------------------------------------------------------------------------------------


def read_cached(fd: Fd, offset: int, into: memoryview, *, in_memory: bool) -> int | None:
    """Fill *into* if the page cache can do so at once; how far, or None where it cannot.

    Less than all of it says that the file ends there: the kernel takes it for that. A file system
    that holds its files *in_memory* knows no RWF_NOWAIT, nor needs it.
    """
    flags = 0 if in_memory else os.RWF_NOWAIT
    size = len(into)
    try:
        done = count = os.preadv(fd.number, [into], offset, flags)
        while count and done < size:
            count = os.preadv(fd.number, [into[done:]], offset + done, flags)
            done += count
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
            return None
        raise
    return done


def read(fd: Fd, offset: int, size: int) -> bytes:
    """*size* bytes at *offset*, fewer only at the end of the file; may wait for the device."""
    pieces = []
    while size > 0:
        piece = os.pread(fd.number, size, offset)
        if not piece:
            break
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def write(fd: Fd, offset: int, data: bytes) -> int:
    """Write *data*; fewer bytes are acknowledged only where an error stopped it half-way."""
    done = count = os.pwrite(fd.number, data, offset)
    view = memoryview(data)
    while count and done < len(data):
        try:
            count = os.pwrite(fd.number, view[done:], offset + done)
        except OSError:
            break
        done += count
    return done


def has_set_id(fd: Fd) -> bool:
    """Whether what *fd* is open on has a bit that writing to it may clear."""
    return bool(os.fstat(fd.number).st_mode & (stat.S_ISUID | stat.S_ISGID))


def is_set_gid(fd: Fd) -> bool:
    """Whether what *fd* is open on has the set-gid bit."""
    return bool(os.fstat(fd.number).st_mode & stat.S_ISGID)


def clear_set_id(fd: Fd) -> None:
    """Take away the bits that do not survive a write to what *fd* is open on (inode(7))."""
    mode = stat.S_IMODE(os.fstat(fd.number).st_mode)
    falls = stat.S_ISUID | (stat.S_ISGID if mode & stat.S_IXGRP else 0)
    if mode & falls:
        with suppress(PermissionError):  # who may not do this cannot keep them by writing, either
            os.fchmod(fd.number, mode & ~falls)


def sync(fd: Fd, data_only: bool) -> None:
    """fsync(2), or fdatasync(2) where *data_only*."""
    if data_only:
        os.fdatasync(fd.number)
    else:
        os.fsync(fd.number)


def flush(fd: Fd) -> None:
    """Report what close(2) would (a network file system's delayed errors), without closing."""
    os.close(os.dup(fd.number))

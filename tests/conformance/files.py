"""Behaviours of open files: flags, reading, writing, sizes, mappings, locks."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import stat

from conformance.case import (
    Case,
    behaviour,
    libc_call,
    opened,
    opened_and_closed,
    read,
    write,
)

CREATE = os.O_CREAT | os.O_WRONLY


@behaviour()
def create_makes_an_empty_file(case: Case) -> None:
    with opened("f", CREATE, 0o640) as fd:
        case.same(os.fstat(fd).st_size, 0, "the size")
        case.same(stat.S_IFMT(os.fstat(fd).st_mode), stat.S_IFREG, "the type")
    case.same(os.listdir("."), ["f"], "the listing")


@behaviour()
def create_exclusively(case: Case) -> None:
    case.done(opened_and_closed, "f", CREATE | os.O_EXCL)
    case.refused(errno.EEXIST, opened_and_closed, "f", CREATE | os.O_EXCL)


@behaviour()
def create_exclusively_over_a_dangling_link(case: Case) -> None:
    os.symlink("nowhere", "l")
    case.refused(errno.EEXIST, opened_and_closed, "l", CREATE | os.O_EXCL)
    case.refused(errno.ENOENT, os.lstat, "nowhere")


@behaviour()
def create_through_a_dangling_link(case: Case) -> None:
    os.symlink("f", "l")
    case.done(opened_and_closed, "l", CREATE)
    case.same(sorted(os.listdir(".")), ["f", "l"], "the listing")


@behaviour()
def create_opens_what_exists(case: Case) -> None:
    write("f", b"kept")
    case.done(opened_and_closed, "f", CREATE)
    case.same(read("f"), b"kept", "the content")


@behaviour()
def create_without_a_parent(case: Case) -> None:
    case.refused(errno.ENOENT, opened_and_closed, "missing/f", CREATE)
    write("f")
    case.refused(errno.ENOTDIR, opened_and_closed, "f/g", CREATE)


@behaviour()
def create_over_a_directory(case: Case) -> None:
    os.mkdir("d")
    case.refused(errno.EISDIR, opened_and_closed, "d", CREATE)
    case.refused(errno.EISDIR, opened_and_closed, "new/", CREATE)


@behaviour()
def create_read_only_and_write_through_the_handle(case: Case) -> None:
    with opened("f", os.O_CREAT | os.O_RDWR, 0o400) as fd:
        case.same(os.write(fd, b"abc"), 3, "bytes written")
        case.same(os.pread(fd, 10, 0), b"abc", "the content")


@behaviour()
def open_truncating(case: Case) -> None:
    write("f", b"long ago")
    case.done(opened_and_closed, "f", os.O_WRONLY | os.O_TRUNC)
    case.same(os.stat("f").st_size, 0, "the size")


@behaviour()
def open_a_directory_for_writing(case: Case) -> None:
    os.mkdir("d")
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        case.refused(errno.EISDIR, opened_and_closed, "d", flags)


@behaviour()
def open_with_directory_flag(case: Case) -> None:
    write("f")
    os.mkdir("d")
    case.refused(errno.ENOTDIR, opened_and_closed, "f", os.O_RDONLY | os.O_DIRECTORY)
    case.done(opened_and_closed, "d", os.O_RDONLY | os.O_DIRECTORY)


@behaviour()
def open_without_following(case: Case) -> None:
    write("f")
    os.symlink("f", "l")
    case.refused(errno.ELOOP, opened_and_closed, "l", os.O_RDONLY | os.O_NOFOLLOW)
    case.done(opened_and_closed, "f", os.O_RDONLY | os.O_NOFOLLOW)
    with opened("l", os.O_PATH | os.O_NOFOLLOW) as fd:
        case.same(stat.S_IFMT(os.fstat(fd).st_mode), stat.S_IFLNK, "the type")


@behaviour()
def open_with_a_trailing_slash(case: Case) -> None:
    write("f")
    case.refused(errno.ENOTDIR, opened_and_closed, "f/", os.O_RDONLY)
    case.refused(errno.ENOTDIR, os.stat, "f/")


@behaviour("nothing", "write")
def appending_goes_to_the_end(case: Case) -> None:
    write("f", b"1")
    with opened("f", os.O_WRONLY | os.O_APPEND) as one, opened("f", os.O_WRONLY) as other:
        os.write(one, b"2")
        os.pwrite(other, b"3", 2)
        os.lseek(one, 0, os.SEEK_SET)
        os.write(one, b"4")
        os.pwrite(one, b"5", 0)  # Linux appends all the same: pwrite(2), BUGS
    case.same(read("f"), b"12345", "the content")


@behaviour("nothing", "read", "write")
def wrong_direction(case: Case) -> None:
    write("f", b"abc")
    with opened("f", os.O_RDONLY) as fd:
        case.refused(errno.EBADF, os.write, fd, b"x")
        case.refused(errno.EINVAL, os.ftruncate, fd, 0)
    with opened("f", os.O_WRONLY) as fd:
        case.refused(errno.EBADF, os.read, fd, 1)


@behaviour("nothing", "read")
def reading_at_offsets(case: Case) -> None:
    write("f", bytes(range(200)))
    with opened("f") as fd:
        case.same(os.pread(fd, 5, 10), bytes(range(10, 15)), "a piece")
        case.same(os.pread(fd, 50, 190), bytes(range(190, 200)), "a piece at the end")
        case.same(os.pread(fd, 5, 200), b"", "behind the end")
        case.same(os.pread(fd, 5, 1 << 40), b"", "far behind the end")
        case.same(os.read(fd, 2), b"\0\1", "pread leaves the position alone; the start")


@behaviour("nothing", "write")
def writing_behind_the_end_leaves_a_hole(case: Case) -> None:
    with opened("f", os.O_CREAT | os.O_RDWR) as fd:
        os.pwrite(fd, b"x", 1_000_000)
        case.same(os.fstat(fd).st_size, 1_000_001, "the size")
        case.true(os.fstat(fd).st_blocks * 512 < 500_000, "the hole takes no blocks")
        case.same(os.pread(fd, 4, 500_000), bytes(4), "the hole")


@behaviour("nothing", "read", "write")
def large_contents(case: Case) -> None:
    """More than one FUSE request each way, at offsets that are no multiple of a page."""
    data = os.urandom(3_000_001)
    write("f", data)
    case.same(os.stat("f").st_size, len(data), "the size")
    case.true(read("f") == data, "the content is what was written")
    with opened("f", os.O_RDWR) as fd:
        os.pwrite(fd, b"#" * 300_000, 1_234_567)
    case.true(
        read("f") == data[:1_234_567] + b"#" * 300_000 + data[1_534_567:], "a piece was replaced"
    )


@behaviour("nothing", "read")
def vectors(case: Case) -> None:
    with opened("f", os.O_CREAT | os.O_RDWR) as fd:
        case.same(os.writev(fd, [b"ab", b"", b"cde"]), 5, "bytes written")
        pieces = [bytearray(3), bytearray(3)]
        case.same(os.preadv(fd, pieces, 0), 5, "bytes read")
        case.same(pieces, [bytearray(b"abc"), bytearray(b"de\0")], "the pieces")


@behaviour("nothing", "lseek")
def seeking(case: Case) -> None:
    write("f", b"0123456789")
    with opened("f") as fd:
        case.same(os.lseek(fd, -3, os.SEEK_END), 7, "the position")
        case.same(os.read(fd, 1), b"7", "the byte there")
        case.refused(errno.EINVAL, os.lseek, fd, -1, os.SEEK_SET)
        case.same(os.lseek(fd, 0, os.SEEK_HOLE), 10, "the first hole of a full file")
        case.same(os.lseek(fd, 3, os.SEEK_DATA), 3, "the next data")
        case.refused(errno.ENXIO, os.lseek, fd, 10, os.SEEK_DATA)


@behaviour("nothing", "truncate")
def truncate_by_path(case: Case) -> None:
    write("f", b"0123456789")
    os.truncate("f", 4)
    case.same(read("f"), b"0123", "the content, cut")
    os.truncate("f", 6)
    case.same(read("f"), b"0123\0\0", "the content, extended")
    case.refused(errno.ENOENT, os.truncate, "missing", 0)
    case.refused(errno.EINVAL, os.truncate, "f", -1)


@behaviour("nothing", "truncate")
def truncate_what_is_no_file(case: Case) -> None:
    os.mkdir("d")
    os.mkfifo("p")
    case.refused(errno.EISDIR, os.truncate, "d", 0)
    case.refused(errno.EINVAL, os.truncate, "p", 0)


@behaviour("nothing", "ftruncate")
def truncate_by_handle(case: Case) -> None:
    write("f", b"0123456789")
    with opened("f", os.O_RDWR) as fd:
        os.unlink("f")
        os.ftruncate(fd, 3)
        case.same(os.fstat(fd).st_size, 3, "the size")
        case.same(os.pread(fd, 10, 0), b"012", "the content")


@behaviour("nothing", "unlink")
def unlinked_while_open(case: Case) -> None:
    write("f", b"still")
    with opened("f", os.O_RDWR) as fd:
        os.unlink("f")
        case.same(os.fstat(fd).st_nlink, 0, "the link count")
        os.pwrite(fd, b" here", 5)
        case.same(os.pread(fd, 100, 0), b"still here", "the content")
        write("f", b"new")
        case.same(os.pread(fd, 100, 0), b"still here", "the content beside a new file")
        os.fchmod(fd, 0o600)
        case.same(os.fstat(fd).st_mode & 0o777, 0o600, "the mode")
    case.same(read("f"), b"new", "the new file's content")


@behaviour()
def replaced_while_open(case: Case) -> None:
    write("old", b"old")
    write("new", b"new")
    with opened("old", os.O_RDWR) as fd:
        os.rename("new", "old")
        case.same(os.pread(fd, 9, 0), b"old", "the content by handle")
        os.pwrite(fd, b"OLD", 0)
        case.same(os.fstat(fd).st_nlink, 0, "the link count by handle")
        case.same(read("old"), b"new", "the content by name")
    case.same(os.listdir("."), ["old"], "the listing")


@behaviour()
def renamed_while_open(case: Case) -> None:
    write("a", b"1")
    os.mkdir("d")
    with opened("a", os.O_RDWR) as fd:
        os.rename("a", "d/b")
        os.pwrite(fd, b"2", 1)
        case.same(os.fstat(fd).st_ino, os.stat("d/b").st_ino, "the inode")
    case.same(read("d/b"), b"12", "the content")


@behaviour()
def two_handles_see_one_file(case: Case) -> None:
    with opened("f", os.O_CREAT | os.O_RDWR) as one, opened("f", os.O_RDWR) as other:
        os.pwrite(one, b"abc", 0)
        case.same(os.pread(other, 9, 0), b"abc", "what the other handle reads")
        os.ftruncate(other, 1)
        case.same(os.fstat(one).st_size, 1, "the size by the first handle")
        case.same(os.stat("f").st_size, 1, "the size by name")


@behaviour("nothing", "mmap")
def shared_mapping(case: Case) -> None:
    write("f", b"a" * 8192)
    with opened("f", os.O_RDWR) as fd, mmap.mmap(fd, 8192) as memory:
        case.same(memory[4095:4097], b"aa", "what is mapped")
        memory[4095:4097] = b"bc"
        memory.flush()
        case.same(os.pread(fd, 2, 4095), b"bc", "what is read after writing to memory")
        os.pwrite(fd, b"d", 0)
        case.same(memory[0:1], b"d", "what is mapped after writing to the file")
    case.same(read("f")[4095:4097], b"bc", "what is read once it is unmapped")


@behaviour("nothing", "mmap")
def private_mapping_outlives_the_handle(case: Case) -> None:
    write("f", b"kept")
    with opened("f") as fd:
        memory = mmap.mmap(fd, 4, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
    os.unlink("f")
    case.same(memory[:], b"kept", "what is mapped")
    memory.close()


@behaviour("nothing", "fsync", "fdatasync")
def fsync_of_files_and_directories(case: Case) -> None:
    with opened("f", CREATE) as fd:
        os.write(fd, b"x")
        case.done(os.fsync, fd)
        case.done(os.fdatasync, fd)
    with opened(".") as fd:
        case.done(os.fsync, fd)


@behaviour("nothing", "flock")
def locks_between_handles(case: Case) -> None:
    write("f")
    with opened("f") as one, opened("f") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        case.refused(errno.EAGAIN, fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        case.done(fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@behaviour("nothing", "copy_file_range", "sendfile")
def copying_in_the_kernel(case: Case) -> None:
    write("f", b"0123456789")
    with opened("f") as source, opened("g", CREATE) as sink:
        case.same(os.copy_file_range(source, sink, 4, 3, 0), 4, "copy_file_range")
    case.same(read("g"), b"3456", "what was copied")
    with opened("f") as source, opened("h", CREATE) as sink:
        case.same(os.sendfile(sink, source, 0, 10), 10, "sendfile")
    case.same(read("h"), b"0123456789", "what was sent")


@behaviour()
def opening_fifos_and_sockets(case: Case) -> None:
    os.mkfifo("p")
    with opened("p", os.O_RDWR) as fd:
        os.write(fd, b"through")
        case.same(os.read(fd, 10), b"through", "what comes out of the FIFO")
    os.mknod("s", stat.S_IFSOCK | 0o600)
    case.refused(errno.ENXIO, opened_and_closed, "s", os.O_RDONLY)


@behaviour()
def reopening_by_the_process_s_own_descriptor(case: Case) -> None:
    write("f", b"same")
    with opened("f", os.O_PATH) as fd:
        os.unlink("f")
        with opened(f"/proc/self/fd/{fd}", os.O_RDWR) as again:
            case.same(os.read(again, 9), b"same", "what is read")


# -- what FUSE, or pyfuse3, does not carry ------------------------------------------------------


@behaviour("nothing", "lseek")
def seeking_holes(case: Case) -> None:
    with opened("f", CREATE) as fd:
        os.pwrite(fd, b"data", 1 << 20)
        found = os.lseek(fd, 0, os.SEEK_DATA), os.lseek(fd, 0, os.SEEK_HOLE)
    hole = found == (1 << 20, 0)
    all_data = found == (0, (1 << 20) + 4)
    case.differs("holes", "seen" if hole else "all data" if all_data else repr(found))


@behaviour("nothing", "fallocate", "posix_fallocate")
def preallocation(case: Case) -> None:
    with opened("f", CREATE) as fd:
        allocate = ("fallocate", fd, 0, ctypes.c_long(0), ctypes.c_long(4096))
        case.excepted("fallocate", libc_call, *allocate)
        os.posix_fallocate(fd, 0, 5000)  # the C library then writes zeros itself
        case.same(os.fstat(fd).st_size, 5000, "the size")


@behaviour("nothing", "open")
def nameless_files(case: Case) -> None:
    case.excepted("O_TMPFILE", opened_and_closed, ".", os.O_TMPFILE | os.O_RDWR)


@behaviour("nothing", "ioctl")
def inode_flags(case: Case) -> None:
    get_flags = 0x80086601  # FS_IOC_GETFLAGS, ioctl_iflags(2)
    with opened("f", os.O_CREAT | os.O_RDWR) as fd:
        case.excepted("inode flags", fcntl.ioctl, fd, get_flags, bytes(8))


@behaviour("nothing", "open")
def device_nodes_are_made_and_not_opened(case: Case) -> None:
    os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    case.same(os.lstat("null").st_rdev, os.makedev(1, 3), "the device number")
    case.excepted("open a device", opened_and_closed, "null", os.O_RDWR)

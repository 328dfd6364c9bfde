"""Where overlayd deliberately answers differently from kernel bind mounts: the one list.

Behaviours (mounts.py and others) show each row on both sides, so that a row that no longer holds
fails; the random sequences (tests/model) tolerate these rows, where they can arise, and no other.
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import (
    EACCES,
    EBADF,
    EBUSY,
    EEXIST,
    EINVAL,
    EISDIR,
    ENAMETOOLONG,
    ENODATA,
    ENOENT,
    ENOTDIR,
    ENOTEMPTY,
    ENOTTY,
    EOPNOTSUPP,
    EPERM,
    EROFS,
    EXDEV,
)
from typing import Literal

OK = 0

Setting = Literal["anywhere", "across mounts", "read-only", "above", "synthetic"]
"""What tests/model can tell of an operation from its resolved paths: that it names two mounts,
something in a read-only preopen, a directory above a mount point, or something in a synthetic one.
"anywhere" stands for what it cannot tell and therefore does not come to: those rows are shown by
behaviours alone."""


@dataclass(frozen=True)
class Divergence:
    """One deliberate difference. Answers are errno numbers, OK, or a word where none applies."""

    name: str
    operations: tuple[str, ...]
    setting: Setting
    kernel: int | str
    overlayd: int | str
    reason: str


_SPEC_EBUSY = "SPEC.md 3.5: what leads to a mount point stays; the kernel pins only the mount point"
_SYNTHETIC_BUSY = "SPEC.md 6, third row; the kernel finds the read-only mount before the name"
_VFS_LOOKS_FIRST = (
    "the FUSE mount is writable and one mount to the kernel, which looks names up before it sends"
    " a request; with bind mounts it compares or asks the mounts before the names"
)
_NO_HANDLER = "pyfuse3 has no handler for it, so that the kernel itself answers"

_ROWS = (
    # -- what SPEC.md asks for ------------------------------------------------------------------
    Divergence("rename above a mount point", ("rename",), "above", OK, EBUSY, _SPEC_EBUSY),
    Divergence("rmdir above a mount point", ("rmdir",), "above", ENOTEMPTY, EBUSY, _SPEC_EBUSY),
    Divergence("replace above a mount point", ("rename",), "above", ENOTEMPTY, EBUSY, _SPEC_EBUSY),
    Divergence("exchange above a mount point", ("rename",), "above", OK, EBUSY, _SPEC_EBUSY),
    Divergence(
        "removal in a synthetic", ("rmdir", "unlink"), "synthetic", EROFS, EBUSY, _SYNTHETIC_BUSY
    ),
    Divergence("rename in a synthetic", ("rename",), "synthetic", EROFS, EBUSY, _SYNTHETIC_BUSY),
    Divergence(
        "link into a read-only mount",
        *(("link",), "across mounts", EROFS, EXDEV),
        "SPEC.md 3.6: between mount points it is EXDEV, always",
    ),
    Divergence(
        "write to an alias of a read-only file",
        *(("open",), "anywhere", OK, EROFS),
        "SPEC.md 4.2: read-only belongs to the inode; to the kernel, to the mount",
    ),
    Divergence(
        "text of a link that leaves",
        *(("readlink",), "anywhere", "stored", "rebased"),
        "SPEC.md 5: what readlink returns resolves inside the namespace",
    ),
    Divergence(
        "one directory through two preopens",
        *(("stat",), "anywhere", "one inode", "two inodes"),
        "SPEC.md 3.7 speaks of files: the kernel gives no FUSE directory two parents",
    ),
    Divergence(
        "one symbolic link in two directories",
        *(("link",), "anywhere", "one inode", "two inodes"),
        "SPEC.md 5: what it says depends on where it is; the two agree in all else, but for 100 ms"
        " (--cache) after a first link was given its second name",
    ),
    # -- the order in which the kernel asks -----------------------------------------------------
    *(
        Divergence(name, operations, "read-only", EROFS, answer, _VFS_LOOKS_FIRST)
        for name, operations, answer in (
            ("unlink of a missing name, read-only", ("unlink",), ENOENT),
            ("unlink of a directory, read-only", ("unlink",), EISDIR),
            ("rmdir of a missing name, read-only", ("rmdir",), ENOENT),
            ("rmdir of a file, read-only", ("rmdir",), ENOTDIR),
            ("rename of a missing name, read-only", ("rename",), ENOENT),
            ("rename onto a taken name, read-only", ("rename",), EEXIST),
            ("rename of a file over a directory, read-only", ("rename",), EISDIR),
            ("rename of a directory over a file, read-only", ("rename",), ENOTDIR),
            ("rename into itself, read-only", ("rename",), EINVAL),
            ("rename over what holds it, read-only", ("rename",), ENOTEMPTY),
            ("rename to the same name, read-only", ("rename",), OK),
            ("link to a directory, read-only", ("link",), EPERM),
            ("unlink of too long a name, read-only", ("unlink",), ENAMETOOLONG),
            ("rmdir of too long a name, read-only", ("rmdir",), ENAMETOOLONG),
            ("rename of too long a name, read-only", ("rename",), ENAMETOOLONG),
        )
    ),
    Divergence(
        "replace a missing attribute, read-only",
        *(("setxattr",), "read-only", EROFS, ENODATA),
        "pyfuse3 keeps XATTR_CREATE and XATTR_REPLACE to itself and looks for the attribute first",
    ),
    *(
        Divergence(f"{name} across mounts", operations, "across mounts", EXDEV, answer, reason)
        for name, operations, answer, reason in (
            ("missing name", ("rename",), ENOENT, _VFS_LOOKS_FIRST),
            ("taken name", ("rename",), EEXIST, _VFS_LOOKS_FIRST),
            ("nothing to exchange", ("rename",), ENOENT, _VFS_LOOKS_FIRST),
            ("file over directory", ("rename",), EISDIR, _VFS_LOOKS_FIRST),
            ("directory over file", ("rename",), ENOTDIR, _VFS_LOOKS_FIRST),
            ("into itself", ("rename",), EINVAL, _VFS_LOOKS_FIRST),
            ("over what holds it", ("rename",), ENOTEMPTY, _VFS_LOOKS_FIRST),
            ("names of one file", ("rename",), OK, _VFS_LOOKS_FIRST),
            ("too long a name", ("rename",), ENAMETOOLONG, _VFS_LOOKS_FIRST),
            ("directory linked", ("link",), EPERM, _VFS_LOOKS_FIRST),
        )
    ),
    # -- what FUSE does not carry ---------------------------------------------------------------
    Divergence("fallocate", ("fallocate",), "anywhere", OK, EOPNOTSUPP, _NO_HANDLER),
    Divergence(
        "holes",
        *(("lseek",), "anywhere", "seen", "all data"),
        "pyfuse3 has no handler for it, so that SEEK_DATA and SEEK_HOLE get the kernel's generic"
        " answer; a hole reads as zeros and takes no room all the same",
    ),
    Divergence("O_TMPFILE", ("open",), "anywhere", OK, EOPNOTSUPP, _NO_HANDLER),
    Divergence(
        "posix_fallocate for appending",
        *(("posix_fallocate",), "anywhere", OK, EBADF),
        "without fallocate glibc writes the zeros itself, which it will not do by such a handle",
    ),
    Divergence(
        "content of what runs, after O_RDONLY with O_TRUNC",
        *(("open",), "anywhere", "stays", "goes"),
        "the kernel sends the open, which truncates, before it asks whether the file runs; the"
        " caller gets ETXTBSY all the same",
    ),
    Divergence("inode flags", ("ioctl",), "anywhere", OK, ENOTTY, _NO_HANDLER),
    Divergence(
        "RENAME_WHITEOUT",
        *(("rename",), "anywhere", OK, EINVAL),
        "SPEC.md 2: a preopen is no overlayfs layer; only the other two flags are offered",
    ),
    Divergence(
        "access for writing with --allow-other",
        *(("access",), "anywhere", EROFS, OK),
        "SPEC.md 8: default_permissions has the kernel answer access(2) from the mode, without"
        " asking overlayd; opening for writing is EROFS all the same",
    ),
    Divergence(
        "open a device",
        *(("open",), "anywhere", OK, EACCES),
        "SPEC.md 8: the mount is nodev; `-o dev` allows it",
    ),
)

EXCEPTIONS: dict[str, Divergence] = {row.name: row for row in _ROWS}

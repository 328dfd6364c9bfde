"""The mounts of this process's namespace, from /proc/self/mountinfo (proc(5)).

`health` reads them every few seconds: what it does not need is imported where it is used.
"""

import os

FILE_SYSTEM_TYPE = "fuse.overlayd"

_MNT_DETACH = 2
_MAX_LINKS = 40
_REMOTE_TYPES = frozenset(
    ("9p", "afs", "autofs", "ceph", "cifs", "coda", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4")
    + ("ocfs2", "gfs2", "orangefs", "smb3", "virtiofs", "fuse", "fuseblk")
)

_PSEUDO_TYPES = frozenset(
    ("proc", "sysfs", "cgroup", "cgroup2", "devpts", "devtmpfs", "mqueue", "nsfs", "securityfs")
    + ("debugfs", "tracefs", "bpf", "pstore", "configfs", "fusectl", "binfmt_misc", "rpc_pipefs")
)
"""Nobody's files lie there, and they are mounted in many places."""

_STACKED_TYPES = frozenset(("ecryptfs", "overlay"))

LOCAL_TYPES = frozenset(
    ("bcachefs", "btrfs", "devtmpfs", "ext2", "ext3", "ext4", "f2fs", "ramfs", "rootfs", "tmpfs")
    + ("xfs",)
)
"""File systems that never wait for a server, and whose inode numbers are for life and the same in
listings. On overlayfs a directory may get another one when it is first changed; there and on FUSE
listings may tell other ones."""


class Mount:
    """One line of mountinfo; paths are bytes with their escapes undone. Never changed."""

    __slots__ = ("dev", "fs_type", "mount_id", "mount_point", "root", "source")

    def __init__(
        self, mount_id: int, dev: int, root: bytes, mount_point: bytes, fs_type: str, source: str
    ) -> None:
        """*root* is the directory of the file system that is visible at *mount_point*."""
        self.mount_id = mount_id
        self.dev = dev
        self.root = root
        self.mount_point = mount_point
        self.fs_type = fs_type
        self.source = source

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mount) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def _fields(self) -> tuple[object, ...]:
        return tuple(getattr(self, name) for name in self.__slots__)

    @property
    def may_block(self) -> bool:
        """Whether a status call can wait for a server: network and FUSE file systems."""
        return self.fs_type in _REMOTE_TYPES or self.fs_type.startswith("fuse.")

    @property
    def is_stacked(self) -> bool:
        """Whether its files lie on another file system."""
        return self.fs_type in _STACKED_TYPES


Components = tuple[bytes, ...]
"""Of a path, from the top down."""


class MountSnapshot:
    """The mounts as they were at one moment, by their id."""

    def __init__(self, mounts: list[Mount]) -> None:
        self.by_id = {mount.mount_id: mount for mount in mounts}
        self._below: dict[Components, list[tuple[Mount, Components]]] = {}
        """By host path, once it is asked for; many thousands of paths may be."""

    def has_binds(self) -> bool:
        """Whether any file system that holds files is mounted more than once."""
        devices = [m.dev for m in self.by_id.values() if m.fs_type not in _PSEUDO_TYPES]
        return len(devices) > len(set(devices))

    def locate(self, path: bytes, mount_id: int) -> tuple[Mount, Components] | None:
        """The mount with *mount_id*, and the place of host *path* inside its file system.

        None where the path does not lie in that mount as this process sees it.
        """
        mount = self.by_id.get(mount_id)
        if mount is None:
            return None
        below = components_below(path, mount.mount_point)
        return None if below is None else (mount, split(mount.root) + below)

    def below(self, path: bytes) -> list[tuple[Mount, Components]]:
        """The mounts strictly below host *path*, each with its mount point relative to it."""
        if not self._below:
            self._sort_by_path()
        return self._below.get(split(path), [])

    def _sort_by_path(self) -> None:
        for mount in self.by_id.values():
            point = split(mount.mount_point)
            for depth in range(len(point)):
                self._below.setdefault(point[:depth], []).append((mount, point[depth:]))


def split(path: bytes) -> Components:
    """The components of an absolute path."""
    return tuple(component for component in path.split(b"/") if component)


def components_below(path: bytes, above: bytes) -> Components | None:
    """What leads from *above* to *path*, component by component; None where it does not."""
    inner, outer = split(path), split(above)
    return inner[len(outer) :] if inner[: len(outer)] == outer else None


def read_mounts() -> list[Mount]:
    """Every mount this process sees, in mount order; asks no file system anything."""
    with open("/proc/self/mountinfo", "rb") as table:
        return parse_mounts(table.read())


def parse_mounts(text: bytes) -> list[Mount]:
    """The mounts that *text*, the content of a mountinfo file, lists."""
    return [_parse(line) for line in text.splitlines()]


class MountWatch:
    """Notices, without reading it, that the table of mounts has changed (proc(5), POLLPRI)."""

    def __init__(self) -> None:
        import select

        from overlayd.host.fs import Fd

        self._table = Fd(os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC))
        self._poll = select.poll()
        self._poll.register(self._table.number, select.POLLPRI)

    @property
    def descriptor(self) -> int:
        """Of the table, for who waits for POLLPRI."""
        return self._table.number

    def has_changed(self) -> bool:
        """Whether anything was mounted or unmounted since this was last asked."""
        return bool(self._poll.poll(0))

    def text(self) -> bytes:
        """The table as it is now.

        A mount point moves with the directories above it, which `has_changed` does not notice.
        """
        text = b""
        while piece := os.pread(self._table.number, 1 << 16, len(text)):
            text += piece
        return text


class MountChanges:
    """What is mounted and unmounted, for whom it concerns; `descriptor` is readable after any."""

    def __init__(self) -> None:
        import select

        self._watch = MountWatch()
        self._epoll = select.epoll()
        self._epoll.register(self._watch.descriptor, select.EPOLLPRI)
        self._lines: frozenset[bytes] = frozenset()
        self.take()

    @property
    def descriptor(self) -> int:
        """It may miss changes between the end of one wait for it and the next one's start."""
        return self._epoll.fileno()

    def take(self) -> list[Mount]:
        """The mounts that came, went or were changed since this was last asked."""
        before, self._lines = self._lines, frozenset(self._watch.text().splitlines())
        return parse_mounts(b"\n".join(before ^ self._lines))

    def close(self) -> None:
        """Notice nothing any more."""
        self._epoll.close()


def mount_at(path: str) -> Mount | None:
    """The topmost mount whose mount point is *path*, which itself is not touched."""
    wanted = os.fsencode(resolve_mount_point(path))
    found = None
    for mount in read_mounts():
        if mount.mount_point == wanted:
            found = mount
    return found


def unique_id(path: str) -> int | None:
    """What tells the topmost mount on *path* from every later one; None where nothing does.

    The kernel gives the ids and device numbers in the mount table to the next mount again.
    """
    from overlayd.host.libc import unique_mount_id

    try:
        return unique_mount_id(os.fsencode(path))
    except OSError:
        return None


def resolve_mount_point(path: str) -> str:
    """*path* as the mount table has it: absolute and without links.

    What lies at its end is not asked for anything: a dead FUSE mount answers ENOTCONN, a hung one
    not at all. (readlink(2) looks no further than at the type that the kernel knows.)
    """
    at = path if path.startswith("/") else os.path.join(os.getcwd(), path)
    for _ in range(_MAX_LINKS):
        parent, name = os.path.split(at.rstrip("/"))
        if name in ("", ".", ".."):
            return os.path.realpath(at)
        parent = os.path.realpath(parent)
        at = os.path.join(parent, name)
        try:
            at = os.path.join(parent, os.readlink(at))
        except OSError:
            break
    return at


def detach(path: str) -> None:
    """Take the topmost mount off *path* at once, busy or not (umount2(2), MNT_DETACH)."""
    from overlayd.host.libc import umount2

    umount2(os.fsencode(path), _MNT_DETACH)


def unmount(path: str) -> None:
    """Unmount *path*; raises EBUSY where something still uses it."""
    from overlayd.host.libc import umount2

    umount2(os.fsencode(path), 0)


def _parse(line: bytes) -> Mount:
    before, _, after = line.partition(b" - ")
    mount_id, _, device, root, mount_point = before.split(b" ")[:5]
    fs_type, source = after.split(b" ")[:2]
    major, minor = device.split(b":")
    return Mount(
        mount_id=int(mount_id),
        dev=os.makedev(int(major), int(minor)),
        root=_unescape(root),
        mount_point=_unescape(mount_point),
        fs_type=os.fsdecode(fs_type),
        source=os.fsdecode(_unescape(source)),
    )


def _unescape(field: bytes) -> bytes:
    if b"\\" not in field:
        return field
    import re

    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), field)

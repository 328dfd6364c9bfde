"""Sources: the host side of each preopen, opened once and from then on known by its inode."""

import errno
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from overlayd.errors import UsageError
from overlayd.host import fs
from overlayd.table.guest_path import GuestPath, printable, show
from overlayd.table.mount_tree import Branch, MountTable
from overlayd.table.preopen import Preopen
from overlayd.table.report import Covered

_OF_A_FILE = re.compile(r": dir\[[0-9]+\]$")


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """An opened preopen. *covers* is what its mount point hides in the source around it."""

    preopen: Preopen
    fd: fs.Fd
    stat: fs.HostStat
    covers: Covered | None

    def present_host(self) -> str:
        """Its host path at this moment, for people; as it was given where PATH_MAX is too short."""
        try:
            return os.fsdecode(fs.present_path(self.fd))
        except OSError:
            return self.preopen.host


def open_sources(table: MountTable, base: str = "") -> tuple[Source, ...]:
    """Open every source of *table*, in its order, and check that the table fits what is there.

    Relative host paths are taken from *base*, else from the working directory.

    Raises UsageError, naming the entry and the cure, for a source that is missing, unreadable or
    neither directory nor regular file, and for a mount point below a file or symbolic link.
    """
    opened = [_open_source(preopen, base) for preopen in table.preopens]
    for branch in table.root.walk():
        if branch.mount is not None and not opened[branch.mount][1].is_dir:
            _refuse_misplaced_file(table, branch)
    return tuple(
        Source(preopen, fd, status, _find_covered(table, index, opened))
        for index, (preopen, (fd, status)) in enumerate(zip(table.preopens, opened, strict=True))
    )


def _open_source(preopen: Preopen, base: str) -> tuple[fs.Fd, fs.HostStat]:
    try:
        fd = fs.open_ambient(os.path.join(base, preopen.host))
        status = fs.stat_fd(fd, fresh=True)
        if not (stat.S_ISDIR(status.mode) or stat.S_ISREG(status.mode)):
            raise _unusable(preopen, "is neither a directory nor a regular file")
        fs.reopen(fd, os.O_RDONLY)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        if error.errno == errno.ENOTCONN:
            raise UsageError(
                f"{preopen.origin}: {printable(preopen.host)}: {reason};"
                " a dead mount lies there: mount it again, or unmount it"
            ) from None
        raise _unusable(preopen, reason) from None
    return fd, status


def _unusable(preopen: Preopen, reason: str) -> UsageError:
    host = printable(preopen.host)
    return UsageError(f"{preopen.origin}: {host}: {reason}; {_guess_slip(preopen)}")


def _guess_slip(preopen: Preopen) -> str:
    """What the operator may have meant: fields swapped, or another tool's single colon."""
    if _OF_A_FILE.search(preopen.origin):  # with a key for each field
        return "give an existing, readable directory or regular file"
    left, colon, right = preopen.host.partition(":")
    if colon and left and right:
        host, guest, mode = left, *f"{right}::".split(":")[:2]
        if not os.path.exists(host) and os.path.exists(guest):  # GUEST:HOST: WasmEdge, WAMR
            host, guest = guest, host
        # What was to be read-only must not become writable by following the advice.
        read_only = mode in ("ro", "readonly") or show(preopen.guest) == "/ro" or preopen.read_only
        return (
            "the separator is '::' and the host path comes first, as in"
            f" --dir {printable(host)}::{printable(guest)}{'::ro' if read_only else ''}"
        )
    guest_on_host = show(preopen.guest)
    absent = preopen.host.startswith("/") and not os.path.lexists(preopen.host)
    if absent and preopen.guest and os.path.exists(guest_on_host):
        # Or a slip in HOST, and a guest path such as /lib, which every host has.
        mode = "::ro" if preopen.read_only else ""
        return (
            "give an existing, readable directory or regular file; the host path comes first:"
            " did you mean"
            f" --dir {guest_on_host}::{printable(preopen.host)}{mode}?"
        )
    return "give an existing, readable directory or regular file"


def _refuse_misplaced_file(table: MountTable, branch: Branch) -> None:
    """A regular file can neither be the root nor hold another mount point."""
    assert branch.mount is not None
    file = table.preopens[branch.mount]
    if not branch.path:
        raise UsageError(
            f"{file.origin}: {printable(file.host)} is a regular file and cannot be the root;"
            " attach it below, as in ::/NAME"
        )
    for below in branch.walk():
        if below.mount is not None and below is not branch:
            lower = table.preopens[below.mount]
            raise UsageError(
                f"{lower.origin}: {show(lower.guest)} lies below {show(file.guest)}, where"
                f" {file.origin} attaches the regular file {printable(file.host)};"
                " choose another guest path"
            )


def _find_covered(
    table: MountTable, index: int, opened: list[tuple[fs.Fd, fs.HostStat]]
) -> Covered | None:
    """Walk from the enclosing source to the mount point, refusing files and links on the way."""
    owner = table.enclosing(index)
    if owner is None:
        return None
    preopen, around = table.preopens[index], table.preopens[owner]
    path = preopen.guest[len(around.guest) :]
    directory = opened[owner][0]
    for depth, name in enumerate(path):
        try:
            status = fs.stat_child(directory, name)
            if depth == len(path) - 1:
                return _covered(owner, path, directory, status)
            if not status.is_dir:
                raise _blocked(preopen, around, path[: depth + 1], status)
            directory = fs.open_child(directory, name)
        except FileNotFoundError:
            return Covered(owner, path, depth, 0, None)
        except OSError:
            raise _blocked(preopen, around, path[: depth + 1], None) from None
    return None


def _covered(owner: int, path: GuestPath, directory: fs.Fd, status: fs.HostStat) -> Covered:
    target = None
    if stat.S_ISLNK(status.mode):
        target = printable(os.fsdecode(fs.read_link(fs.open_child(directory, path[-1]))))
    return Covered(owner, path, len(path), status.file_type, target)


def _blocked(
    preopen: Preopen, around: Preopen, path: GuestPath, status: fs.HostStat | None
) -> UsageError:
    """The error for a component on the way to a mount point that is no directory."""
    kind = "cannot be looked at"
    if status is not None:
        kind = "is a symbolic link" if stat.S_ISLNK(status.mode) else "is not a directory"
    component = printable(os.fsdecode(path[-1]))
    return UsageError(
        f"{preopen.origin}: {show(preopen.guest)} passes through '{component}', and"
        f" {printable(around.host)}{show(path)} ({around.origin}) {kind};"
        " make it a directory, or attach the preopen elsewhere"
    )


def find_overlapping(sources: Sequence[Source]) -> frozenset[int]:
    """Indexes of the sources that share a directory with another: equal, above or below it.

    A change through one then shows through the other, where the kernel does not expect it.
    """
    roots: dict[tuple[int, int], list[int]] = {}
    for index, source in enumerate(sources):
        roots.setdefault((source.stat.dev, source.stat.ino), []).append(index)
    shared = {index for same in roots.values() if len(same) > 1 for index in same}
    met: set[tuple[int, int]] = set()
    for index, source in enumerate(sources):
        _, *above = _identities_above(source)
        meeting = roots.keys() & above
        if meeting:
            shared.add(index)
            met |= meeting
    return frozenset(shared.union(*(roots[identity] for identity in met)))


def _identities_above(source: Source) -> Iterator[tuple[int, int]]:
    """(dev, ino) of the source's root and of every directory above it, up to the host's `/`."""
    at = source.fd
    status = source.stat
    yield status.dev, status.ino
    while status.is_dir:
        at = fs.Fd(os.open(b"..", os.O_PATH | os.O_CLOEXEC, dir_fd=at.number))
        above = fs.stat_fd(at)
        if (above.dev, above.ino) == (status.dev, status.ino):
            return
        status = above
        yield status.dev, status.ino

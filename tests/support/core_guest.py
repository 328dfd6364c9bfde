"""The core used the way the kernel uses it: one name at a time, by number and by handle."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from overlayd.core.listings import Entry
from overlayd.core.overlay import Overlay
from overlayd.core.types import Attrs, Changes, Rules, SymlinkMode
from overlayd.host.credentials import Caller
from overlayd.host.sources import open_sources
from overlayd.table.guest_path import parse_guest_path
from overlayd.table.mount_tree import build_table
from overlayd.table.preopen import parse_preopen
from support.processes import outcome

ROOT = Caller(0, 0, 0)
_CHUNK = 1 << 20


def make_overlay(*dirs: str, symlinks: SymlinkMode = "rebase", descriptors: int = 1024) -> Overlay:
    """The core over the preopens DIRS, as the daemon sets it up, but mounted nowhere."""
    table = build_table(parse_preopen(text) for text in dirs)
    return Overlay(table, open_sources(table), Rules(symlinks=symlinks), descriptors)


@contextmanager
def fails(number: int) -> Iterator[None]:
    """The block raises OSError with errno NUMBER."""
    with pytest.raises(OSError) as caught:
        yield
    got = caught.value.errno
    assert got == number, f"{errno.errorcode.get(got or 0, got)}, not {errno.errorcode[number]}"


def each_fails(number: int, *attempts: Callable[[], object]) -> None:
    """Every one of ATTEMPTS raises OSError with errno NUMBER."""
    for attempt in attempts:
        with fails(number):
            attempt()


class Guest:
    """A guest process's calls by path, taken apart into the core's operations.

    No link is followed: that is the kernel's business, by what `readlink` returns.
    """

    def __init__(
        self,
        *dirs: str,
        caller: Caller = ROOT,
        symlinks: SymlinkMode = "rebase",
        descriptors: int = 1024,
    ) -> None:
        self.overlay = make_overlay(*dirs, symlinks=symlinks, descriptors=descriptors)
        self.names = self.overlay.names
        self.attributes = self.overlay.attributes
        self.data = self.overlay.data
        self.caller = caller

    # -- finding --------------------------------------------------------------------------------

    def number(self, path: str | bytes) -> int:
        """The node PATH is, looked up name by name from `/`."""
        number = self.overlay.namespace.nodes.root.number
        for name in parse_guest_path(os.fsdecode(path)):
            number = self.names.lookup(number, name).number
        return number

    def at(self, path: str | bytes) -> tuple[int, bytes]:
        """The directory PATH lies in, and its last name."""
        *above, name = parse_guest_path(os.fsdecode(path))
        return self.number(b"/" + b"/".join(above)), name

    def stat(self, path: str | bytes) -> Attrs:
        """Attributes of PATH, freshly looked up."""
        return self.attributes.getattr(self.number(path))

    def exists(self, path: str | bytes) -> bool:
        try:
            self.number(path)
        except FileNotFoundError:
            return False
        return True

    def is_read_only(self, path: str) -> bool:
        """Whether access(2) says EROFS for writing, whoever asks."""
        try:
            self.attributes.access(self.number(path), os.W_OK, ROOT)
        except OSError as error:
            return error.errno == errno.EROFS
        return False

    # -- reading --------------------------------------------------------------------------------

    def entries(self, handle: int) -> list[tuple[bytes, Attrs]]:
        """A whole listing, taken the way the kernel takes it: each is accepted."""
        listed = []
        for entries in self.overlay.listings.entries(handle, 0):
            self.overlay.listings.settle(entries, len(entries))
            listed += [(entry.name, entry.attrs) for entry in entries]
        return listed

    def take(self, handle: int, start: int, room: int) -> list[Entry]:
        """What goes into one reply to the kernel that holds ROOM entries."""
        listed: list[Entry] = []
        for entries in self.overlay.listings.entries(handle, start):
            taken = entries[: room - len(listed)]
            self.overlay.listings.settle(entries, len(taken))
            listed += taken
            if len(listed) == room:
                break
        return listed

    def listing(self, path: str) -> list[tuple[bytes, Attrs]]:
        """Everything a listing of PATH says, `.` and `..` included, in its order."""
        handle = self.names.opendir(self.number(path), self.caller)
        try:
            return self.entries(handle)
        finally:
            self.data.release(handle)

    def ls(self, path: str) -> list[str]:
        """The sorted names in PATH, without `.` and `..`."""
        names = [os.fsdecode(name) for name, _ in self.listing(path)]
        return sorted(name for name in names if name not in (".", ".."))

    def open(self, path: str | bytes, flags: int = os.O_RDONLY) -> int:
        return self.data.open(self.number(path), flags, self.caller)

    def read(self, path: str | bytes) -> str:
        handle = self.open(path)
        try:
            return self.data.read(handle, 0, _CHUNK).decode()
        finally:
            self.data.release(handle)

    def readlink(self, path: str | bytes) -> bytes:
        return self.attributes.readlink(self.number(path))

    # -- changing -------------------------------------------------------------------------------

    def create(self, path: str | bytes, mode: int = 0o644, flags: int = os.O_RDWR) -> int:
        """Create PATH; the open handle."""
        return self.data.create(*self.at(path), mode, flags, self.caller).handle

    def write(self, path: str, text: str) -> None:
        """Open an existing PATH, truncate it and write TEXT."""
        handle = self.open(path, os.O_WRONLY | os.O_TRUNC)
        try:
            self.data.write(handle, 0, text.encode())
        finally:
            self.data.release(handle)

    def make(self, path: str | bytes, text: str = "") -> None:
        """Create PATH holding TEXT."""
        handle = self.create(path, flags=os.O_WRONLY | os.O_EXCL)
        self.data.write(handle, 0, text.encode())
        self.data.release(handle)

    def mkdir(self, path: str | bytes, mode: int = 0o755) -> Attrs:
        return self.names.mkdir(*self.at(path), mode, self.caller)

    def mknod(self, path: str, mode: int, device: int = 0) -> Attrs:
        return self.names.mknod(*self.at(path), mode, device, self.caller)

    def symlink(self, target: str | bytes, path: str | bytes) -> Attrs:
        return self.names.symlink(*self.at(path), os.fsencode(target), self.caller)

    def link(self, old: str, new: str) -> Attrs:
        return self.names.link(self.number(old), *self.at(new), self.caller)

    def unlink(self, path: str | bytes) -> None:
        self.names.unlink(*self.at(path), self.caller)

    def rmdir(self, path: str | bytes) -> None:
        self.names.rmdir(*self.at(path), self.caller)

    def rename(self, old: str, new: str, flags: int = 0) -> None:
        self.names.rename(*self.at(old), *self.at(new), flags, self.caller)

    def may_change(self, path: str) -> bool:
        """Whether the mode of PATH may be changed, as in a thread that may wait."""
        with self.overlay.namespace.patience():
            return outcome(self.change, path, Changes(mode=0o640)) == "ok"

    def change(self, path: str, changes: Changes, handle: int | None = None) -> Attrs:
        return self.attributes.setattr(self.number(path), changes, handle, self.caller)

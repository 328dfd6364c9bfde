"""The small types in which the core answers; the adapter copies them into the protocol's."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from overlayd.host.fs import HostStat

INDEX = -1
"""Stands for a device in `WouldBlock`: the walk through what is shown read-only."""

SymlinkMode = Literal["rebase", "verbatim"]
ErrorStyle = Literal["posix", "wasi"]
"""What refusals are called: by POSIX, or so that they get through wasmtime (SPEC.md section 6)."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How the namespace behaves where SPEC.md leaves the operator a choice."""

    symlinks: SymlinkMode = "rebase"


class Attrs(NamedTuple):
    """One object's attributes as the namespace shows them."""

    number: int
    stat: HostStat
    size: int
    """In bytes; for symbolic links the length of what readlink returns, not of what is stored."""
    volatile: bool
    """Whether the kernel must ask again each time: it cannot know when this changes."""


class Changes(NamedTuple):
    """What setattr is to change; None leaves a field alone. Times in nanoseconds."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None
    mtime_ns: int | None = None


class WouldBlock(Exception):
    """The operation needs a file system that may keep it waiting; ask again off the event loop.

    Raised before anything was changed. *device* is the file system's device number; *is_there* says
    without waiting whether what the host was asked for already has come, if it was.
    """

    def __init__(self, device: int, is_there: Callable[[], bool] | None = None) -> None:
        super().__init__(device)
        self.device = device
        self.is_there = is_there

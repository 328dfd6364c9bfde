"""What a behaviour is given: ways to say what must come out, with a message that says what did.

Behaviours run in a process of their own (worker.py), where pytest cannot take `assert` apart.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

from conformance.exceptions import EXCEPTIONS, OK, Divergence

Side = Literal["kernel", "overlayd"]
Needs = Literal["nothing", "users", "layout", "layout of all users", "links"]
"""Whether a behaviour switches users (overlayd needs --allow-other then), or works in the nested
layout of layout.py rather than in an empty directory; "links" has links that leave their mount
too, so that bind mounts need a chroot to keep them inside."""


@dataclass
class Case:
    """One run of one behaviour, with the current directory as its place."""

    side: Side
    """Who answers: the kernel's own file system, or overlayd."""
    shown: set[str] = field(default_factory=set)
    """The exceptions this run has shown to hold."""

    def same(self, got: object, wanted: object, what: str = "") -> None:
        if got != wanted:
            raise AssertionError(f"{what or 'the answer'} is {got!r}, not {wanted!r}")

    def true(self, condition: object, what: str) -> None:
        if not condition:
            raise AssertionError(f"it does not hold that {what}")

    def refused(self, number: int, call: Callable[..., object], *args: object) -> None:
        """CALL fails with the errno NUMBER."""
        self._answers(number, call, args)

    def done(self, call: Callable[..., object], *args: object) -> None:
        """CALL succeeds: says which did not, where an OSError alone would not tell."""
        self._answers(OK, call, args)

    def differs(self, name: str, got: str) -> None:
        """GOT is what exceptions.py says under NAME, in words."""
        self.same(got, self.exception(name), name)

    def excepted(self, name: str, call: Callable[..., object], *args: object) -> None:
        """CALL answers what exceptions.py says under NAME: one thing here, another there."""
        self._answers(self.exception(name), call, args)

    def exception(self, name: str) -> int | str:
        """What exceptions.py says under NAME for the side that answers here."""
        row: Divergence = EXCEPTIONS[name]
        self.shown.add(name)
        return row.kernel if self.side == "kernel" else row.overlayd

    def _answers(
        self, wanted: int | str, call: Callable[..., object], args: tuple[object, ...]
    ) -> None:
        got = answer(call, *args)
        if got != wanted:
            shown = ", ".join(repr(argument) for argument in args)
            name = getattr(call, "__name__", repr(call))
            raise AssertionError(f"{name}({shown}): {show(got)}, not {show(wanted)}")


@dataclass(frozen=True)
class Behaviour:
    """A named behaviour and what its environment must offer."""

    name: str
    run: Callable[[Case], None]
    needs: Needs
    operations: tuple[str, ...] = ()
    """The system calls it goes through; empty where it is about something else."""


BEHAVIOURS: dict[str, Behaviour] = {}
"""The one list; catalogue.py imports the modules that fill it."""


def behaviour(
    needs: Needs = "nothing", *operations: str
) -> Callable[[Callable[[Case], None]], None]:
    """Put a function on the list. A name that comes twice is an error, not a silent loss."""

    def enter(run: Callable[[Case], None]) -> None:
        name = run.__name__.removeprefix("_")
        if name in BEHAVIOURS:
            raise ValueError(f"two behaviours are called {name}")
        BEHAVIOURS[name] = Behaviour(name, run, needs, operations)

    return enter


def answer(call: Callable[..., object], *args: object) -> int:
    """The errno a call comes to, 0 for success."""
    try:
        call(*args)
    except OSError as error:
        if error.errno is None:
            raise
        return error.errno
    return OK


def show(number: int | str) -> str:
    if isinstance(number, str):
        return number
    return "success" if number == OK else errno.errorcode.get(number, str(number))


# -- calls that `os` lacks, and short ways to make and look at files ----------------------------

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
RENAME_WHITEOUT = 4
AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EACCESS = 0x200
AT_SYMLINK_FOLLOW = 0x400
UTIME_NOW = (1 << 30) - 1
UTIME_OMIT = (1 << 30) - 2

_libc = ctypes.CDLL(None, use_errno=True)

Path = str | bytes


def checked(result: int) -> int:
    """RESULT of a C function, raised as OSError where it is -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def libc_call(name: str, *args: object) -> int:
    return checked(int(getattr(_libc, name)(*args)))


def rename2(old: Path, new: Path, flags: int) -> None:
    libc_call("renameat2", AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flags)


class Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


def utimensat(path: Path, atime: tuple[int, int], mtime: tuple[int, int], flags: int = 0) -> None:
    """With tuples (seconds, nanoseconds), where UTIME_NOW and UTIME_OMIT may stand for the latter;
    `os.utime` can pass neither."""
    times = (Timespec * 2)(Timespec(*atime), Timespec(*mtime))
    libc_call("utimensat", AT_FDCWD, os.fsencode(path), ctypes.byref(times), flags)


def write(path: Path, data: bytes = b"", mode: int = 0o644) -> None:
    """A new or emptied file with DATA."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)


def read(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def opened_and_closed(path: Path, flags: int, mode: int = 0o644) -> None:
    os.close(os.open(path, flags, mode))


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY, mode: int = 0o644) -> Iterator[int]:
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def mode_of(path: Path) -> int:
    """The permission bits, of a link itself."""
    return os.lstat(path).st_mode & 0o7777


@contextmanager
def user(uid: int, gid: int, groups: tuple[int, ...] = ()) -> Iterator[None]:
    """Act as somebody else, as far as files are concerned."""
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(())


@contextmanager
def umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)

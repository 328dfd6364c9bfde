"""Guest paths: absolute, normalised, compared component by component, made of bytes."""

import os

from overlayd.errors import einval, enametoolong

GuestPath = tuple[bytes, ...]
"""The components of a guest path below `/`; the empty tuple is `/` itself."""

NAME_MAX = 255
"""Longest name in bytes that the namespace accepts (limits.h NAME_MAX)."""

PATH_MAX = 4095
"""Longest guest path in bytes: no system call takes a longer one (limits.h, without the NUL)."""


_SLASH = ord("/")  # looking for a number in bytes takes a tenth of what looking for bytes does
_NO_NAMES = frozenset((b"", b".", b".."))


def parse_guest_path(text: str) -> GuestPath:
    """Normalise *text*: absolute, no repeated or trailing slash, no `.` component.

    Raises ValueError, with words for the operator, for an empty path, a `..` component, a NUL
    or a component or path that is too long: those are never repaired silently (SPEC.md section 2).
    """
    if not text:
        raise ValueError("the guest path is empty")
    if "\0" in text:
        raise ValueError("the guest path holds a NUL byte")
    components = tuple(c for c in os.fsencode(text).split(b"/") if c not in (b"", b"."))
    if b".." in components:
        raise ValueError(f"the guest path {text!r} has a '..' component")
    for component in components:
        if len(component) > NAME_MAX:
            raise ValueError(f"a component of the guest path is longer than {NAME_MAX} bytes")
    if sum(map(len, components)) + len(components) > PATH_MAX:
        raise ValueError(f"the guest path is longer than {PATH_MAX} bytes")
    return components


def check_name(name: bytes) -> None:
    """Refuse what no directory entry can be called; the kernel's own limit for FUSE is 1024."""
    if len(name) > NAME_MAX:
        raise enametoolong()
    if name in _NO_NAMES or _SLASH in name or 0 in name:
        raise einval()


def show(path: GuestPath) -> str:
    """*path* as a person reads it: control characters and stray bytes are escaped."""
    return printable("/" + "/".join(os.fsdecode(c) for c in path))


def printable(text: str) -> str:
    """*text* fit for one line of a terminal or log, whatever bytes it was made from."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode carries it
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()

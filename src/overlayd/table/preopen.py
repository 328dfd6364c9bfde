"""One preopen: the grammar `HOST[::GUEST[::OPTIONS]]`, wasmtime's own plus a third field."""

from dataclasses import dataclass

from overlayd.errors import UsageError
from overlayd.table.guest_path import GuestPath, parse_guest_path, printable, show

_SEPARATOR = "::"
_GRAMMAR = "HOST[::GUEST[::OPTIONS]]"


@dataclass(frozen=True, slots=True)
class Preopen:
    """A host directory or regular file, and the guest path at which it is attached."""

    host: str
    """The host path as the operator gave it; relative to the working directory or the file."""
    guest: GuestPath
    read_only: bool
    origin: str
    """How the operator wrote the entry; quoted in every error about it."""

    @property
    def options(self) -> str:
        """The third field of the grammar, spelled out."""
        return "ro" if self.read_only else "rw"

    def __str__(self) -> str:
        return f"{printable(self.host)}{_SEPARATOR}{show(self.guest)}{_SEPARATOR}{self.options}"


def parse_preopen(text: str, origin: str | None = None) -> Preopen:
    """Read one `--dir` value; *origin* is where it stands if not among overlayd's own options.

    Raises UsageError, naming the entry and the cure, for whatever the grammar does not allow.
    """
    origin = origin or f"--dir {printable(text) or repr(text)}"
    fields = text.split(_SEPARATOR)
    if len(fields) > 3:
        raise UsageError(
            f"{origin}: has {len(fields)} fields; the form is {_GRAMMAR}"
            " (a host path that holds '::' goes into a --config file)",
        )
    host = fields[0]
    guest = fields[1] if len(fields) > 1 else None
    read_only = _parse_options(fields[2], origin) if len(fields) > 2 else False
    return make_preopen(host, guest, read_only, origin)


def make_preopen(host: str, guest: str | None, read_only: bool, origin: str) -> Preopen:
    """Build a preopen from fields already told apart (the configuration file's, for one).

    A missing *guest* is the host path as written. Raises UsageError like `parse_preopen`.
    """
    if not host:
        raise UsageError(f"{origin}: has an empty HOST; the form is {_GRAMMAR}")
    if "\0" in host:
        raise UsageError(f"{origin}: has a NUL byte in HOST; no path can hold one")
    try:
        path = parse_guest_path(host if guest is None else guest)
    except ValueError as error:
        cure = "write it out as an absolute path without '..'"
        if guest is None:
            cure = f"name it: {printable(host)}{_SEPARATOR}/GUEST"
        raise UsageError(f"{origin}: is not usable: {printable(str(error))}; {cure}") from None
    return Preopen(host=host, guest=path, read_only=read_only, origin=origin)


def _parse_options(text: str, origin: str) -> bool:
    """Whether the entry is read-only."""
    words = text.split(",")
    for word in words:
        if word not in ("ro", "rw"):
            what = f"has an unknown option {word!r}" if word else "has an empty option"
            raise UsageError(f"{origin}: {printable(what)}; OPTIONS is 'ro' or 'rw' (the default)")
    if len(set(words)) > 1:
        raise UsageError(f"{origin}: says both 'ro' and 'rw'; keep one")
    return words[0] == "ro"

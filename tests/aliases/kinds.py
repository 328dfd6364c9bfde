"""The kinds of aliases: how the host makes each, and under which names a guest then finds it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aliases.operations import exchange, rename
from aliases.private_mounts import bind, mount_tmpfs
from support.processes import NOBODY

Hook = Callable[[Path], None]


def nothing(place: Path) -> None:
    """A hook for kinds that need none."""


@dataclass(frozen=True)
class Kind:
    """One way in which something read-only has a name in a writable preopen."""

    name: str
    dirs: tuple[str, ...]
    """Preopens; host paths are relative to the layout's place."""
    watched: tuple[str, ...]
    """Host paths that, with all below them, must not change."""
    file: str
    """Guest path of a regular file that is read-only, by a name in a writable preopen."""
    directory: str | None = None
    """The same of a directory that holds `f`, `l`, `d/f` and `d/e/`."""
    writable: str | None = None
    """A directory of that preopen that really is writable; holds `own` and `other/`."""
    moves: bool = False
    """Whether `directory` lies right in `writable`, and only its being read-only keeps it there."""
    before: Hook = nothing
    """What the host does before the mount, given the layout's place."""
    early: Hook = nothing
    """What the guest does once the mount is live, given the target."""
    after: Hook = nothing
    """What the host does then."""
    guest: Hook = nothing
    """What the guest does after that, given the target."""

    def __str__(self) -> str:
        return self.name

    def preopens(self, place: Path, *, backwards: bool = False) -> Sequence[str]:
        """The preopens as `--dir` values, in the one order or the other."""
        found = [f"{place}/{entry}" for entry in self.dirs]
        return found[::-1] if backwards else found


def plant(place: Path) -> None:
    """Make what every kind starts from: `ro`, `w` with `sub`, `p` with `out`; all alike inside."""
    for top in ("ro", "w", "w/sub", "p", "p/out", "p/out/sub"):
        _plant_tree(place / top)
    for path in (place, *place.rglob("*")):
        os.chown(path, NOBODY.uid, NOBODY.gid, follow_symlinks=False)
        if not path.is_symlink():
            os.setxattr(path, "user.kept", b"kept")
            os.utime(path, ns=(1_000_000_000, 1_000_000_000))


def _plant_tree(top: Path) -> None:
    for directory in ("d/e", "other"):
        (top / directory).mkdir(parents=True)
    for name in ("f", "d/f", "own"):
        (top / name).write_text(f"{name} of {top.name}")
    (top / "l").symlink_to("f")


def link(source: str, name: str) -> Hook:
    """The host makes a hard link."""
    return lambda place: os.link(place / source, place / name)


def bound(source: str, target: str) -> Hook:
    """The host makes a bind mount."""
    return lambda place: bind(place / source, place / target)


def moved(old: str, new: str) -> Hook:
    """Somebody renames something."""
    return lambda place: rename(place / old, place / new)


def swapped(one: str, other: str) -> Hook:
    """Somebody exchanges two names."""
    return lambda place: exchange(place / one, place / other)


def seen(*names: str) -> Hook:
    """The guest looks at names, in this order, so that the daemon knows them."""

    def look(target: Path) -> None:
        for name in names:
            (target / name).stat()

    return look


def both(*hooks: Hook) -> Hook:
    """One after the other."""

    def run(place: Path) -> None:
        for hook in hooks:
            hook(place)

    return run


def another_file_system(name: str) -> Hook:
    """A tmpfs at `ro/NAME`, planted like everything else, whose `sub` is also bound at `w/NAME`."""

    def make(place: Path) -> None:
        top = place / "ro" / name
        mount_tmpfs(top)
        plant(top)
        bind(top / "w", place / "w" / name)
        os.link(top / "ro/f", top / "w/alias")

    return make


_RO_AND_W = ("ro::/ro::ro", "w::/w")


def _w_alias(
    name: str,
    *,
    before: Hook = nothing,
    early: Hook = nothing,
    after: Hook = nothing,
    guest: Hook = nothing,
) -> Kind:
    """`w/alias` in the writable source is, in the end, a name of something in `ro`."""
    kind = Kind(name, _RO_AND_W, watched=("ro",), file="w/alias", writable="w")
    return replace(kind, before=before, early=early, after=after, guest=guest)


def _at_either_time(kind: Kind, hook: Hook) -> tuple[Kind, Kind]:
    """The same kind made before the mount and after it."""
    return (
        replace(kind, name=f"{kind.name}, made before", before=hook),
        replace(kind, name=f"{kind.name}, made after", after=hook),
    )


HARD_LINKS = (
    _w_alias("hard link made before", before=link("ro/f", "w/alias")),
    _w_alias("hard link made after", after=link("ro/f", "w/alias")),
    _w_alias(
        "hard link made after the read-only name was seen",
        early=seen("ro/f"),
        after=link("ro/f", "w/alias"),
    ),
    _w_alias(
        "hard link, both names seen",
        before=link("ro/f", "w/alias"),
        guest=seen("w/alias", "ro/f", "w/alias"),
    ),
    _w_alias("hard link deep in the read-only source", before=link("ro/d/f", "w/alias")),
    Kind(
        "hard link, the source inside the other, masked",
        dirs=("p::/::ro", "p/out::/out"),
        watched=("p/f", "p/d"),
        file="out/alias",
        writable="out",
        before=link("p/f", "p/out/alias"),
    ),
    _w_alias(
        "alias renamed by the guest",
        before=link("ro/f", "w/first"),
        guest=moved("w/first", "w/alias"),
    ),
    _w_alias(
        "alias renamed by the host",
        before=link("ro/f", "w/first"),
        after=moved("w/first", "w/alias"),
    ),
    Kind(
        "directory of an alias renamed by the guest",
        dirs=_RO_AND_W,
        watched=("ro",),
        file="w/moved/alias",
        writable="w",
        before=link("ro/f", "w/sub/alias"),
        guest=both(seen("w/sub/alias"), moved("w/sub", "w/moved")),
    ),
    _w_alias(
        "alias swapped with a writable file by the guest",
        before=both(link("ro/f", "w/first"), link("w/f", "w/alias")),
        guest=both(seen("w/first", "w/alias"), swapped("w/first", "w/alias")),
    ),
    _w_alias(
        "alias of an alias",
        before=both(link("ro/f", "w/first"), link("w/first", "w/alias")),
    ),
    _w_alias(
        "alias whose read-only name is made last",
        before=link("w/f", "w/alias"),
        after=link("w/f", "ro/late"),
    ),
    _w_alias(
        "alias whose read-only name is moved in with its directory",
        before=link("w/sub/d/f", "w/alias"),
        early=seen("w/alias", "w/sub/d/f"),
        after=moved("w/sub/d", "ro/late"),
    ),
)

DIRECTORIES = (
    Kind(
        "same directory twice",
        dirs=("ro::/a", "ro::/b::ro"),
        watched=("ro",),
        file="a/f",
        directory="a",
    ),
    Kind(
        "same directory twice, deeper",
        dirs=("ro::/a", "ro::/b::ro"),
        watched=("ro",),
        file="a/d/f",
        directory="a",
    ),
    Kind(
        "read-only below writable",
        dirs=("w::/w", "w/sub::/r::ro"),
        watched=("w/sub",),
        file="w/sub/f",
        directory="w/sub",
        writable="w",
        moves=True,
    ),
    Kind(
        "read-only below writable, in its place",
        dirs=("w::/", "w/sub::/sub::ro"),
        watched=("w/sub",),
        file="sub/f",
        directory="sub",
    ),
    Kind(
        "writable below read-only, unmasked",
        dirs=("p::/p::ro", "p/out::/out"),
        watched=("p",),
        file="out/f",
        directory="out",
    ),
    Kind(
        "writable below read-only, masked by another",
        dirs=("p::/p::ro", "w::/p/out/sub", "p/out::/out"),
        watched=("p/out/f", "p/out/d"),
        file="out/d/f",
        directory="out",
    ),
    Kind(
        "read-only below writable below read-only",
        dirs=("p::/::ro", "p/out::/out", "p/out/sub::/deep::ro"),
        watched=("p/f", "p/out/sub"),
        file="out/sub/f",
        directory="out/sub",
        writable="out",
        moves=True,
    ),
)

BINDS = (
    Kind(
        "source reached through a bind mount",
        dirs=("ro::/ro::ro", "b::/b"),
        watched=("ro",),
        file="b/f",
        directory="b",
        before=bound("ro", "b"),
    ),
    Kind(
        "read-only source reached through a bind mount",
        dirs=("b::/b::ro", "w::/w"),
        watched=("w/sub",),
        file="w/sub/f",
        directory="w/sub",
        writable="w",
        moves=True,
        before=bound("w/sub", "b"),
    ),
    *_at_either_time(
        Kind(
            "bind mount inside the writable source",
            dirs=_RO_AND_W,
            watched=("ro",),
            file="w/m/f",
            directory="w/m",
        ),
        bound("ro", "w/m"),
    ),
    *_at_either_time(
        Kind(
            "bind mount inside the read-only source",
            dirs=_RO_AND_W,
            watched=("w/sub",),
            file="w/sub/f",
            directory="w/sub",
            writable="w",
            moves=True,
        ),
        bound("w/sub", "ro/m"),
    ),
    *_at_either_time(
        Kind(
            "bind mount of one file inside the writable source",
            dirs=_RO_AND_W,
            watched=("ro",),
            file="w/m",
        ),
        bound("ro/f", "w/m"),
    ),
    *_at_either_time(
        Kind(
            "bind mount of one file inside the read-only source",
            dirs=_RO_AND_W,
            watched=("w/f",),
            file="w/f",
            writable="w",
        ),
        bound("w/f", "ro/m"),
    ),
    Kind(
        "bind mount inside the read-only source, seen before",
        dirs=_RO_AND_W,
        watched=("w/sub",),
        file="w/sub/d/f",
        directory="w/sub",
        writable="w",
        moves=True,
        early=seen("w/sub/d/f", "w/sub/d/e", "ro/f"),
        after=bound("w/sub", "ro/m"),
    ),
    *_at_either_time(
        Kind(
            "hard link on a file system mounted in both",
            dirs=_RO_AND_W,
            watched=("ro/t/ro",),
            file="w/t/alias",
        ),
        another_file_system("t"),
    ),
)

SINGLE_FILES = (
    Kind(
        "one file twice",
        dirs=("ro/f::/a", "ro/f::/b::ro"),
        watched=("ro/f",),
        file="a",
    ),
    Kind(
        "file of a read-only source",
        dirs=("ro::/ro::ro", "ro/d/f::/a"),
        watched=("ro",),
        file="a",
    ),
    Kind(
        "file of a writable source",
        dirs=("w::/w", "w/f::/a::ro"),
        watched=("w/f",),
        file="w/f",
        writable="w",
    ),
    Kind(
        "file that is a hard link into a read-only source",
        dirs=("ro::/ro::ro", "w/alias::/a"),
        watched=("ro",),
        file="a",
        before=link("ro/f", "w/alias"),
    ),
    Kind(
        "hard link of a read-only file",
        dirs=("ro/f::/a::ro", "w::/w"),
        watched=("ro/f",),
        file="w/alias",
        writable="w",
        before=link("ro/f", "w/alias"),
    ),
    Kind(
        "two files that are hard links",
        dirs=("ro/f::/a::ro", "w/alias::/b"),
        watched=("ro/f",),
        file="b",
        before=link("ro/f", "w/alias"),
    ),
)

KINDS = (
    *HARD_LINKS,
    *DIRECTORIES,
    *BINDS,
    *SINGLE_FILES,
)

"""A layout: preopens and what their sources hold, for overlayd and for bind mounts alike."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Preopen:
    source: str
    """The host directory or file, below the directory that holds all sources."""
    guest: str
    """Relative: what comes behind `/`, "" for the root."""
    read_only: bool = False


@dataclass(frozen=True)
class Bind:
    """What `mount --bind` is given."""

    host: str
    guest: str
    read_only: bool


@dataclass(frozen=True)
class Layout:
    """Preopens, parents first, and the content of their sources.

    `synthetic` names the topmost directories that no source has. A bind mount needs something to
    be mounted on, so on the kernel's side each is a read-only bind mount of a scaffold.
    """

    preopens: tuple[Preopen, ...]
    contents: Mapping[str, str | bytes | None]
    """By path below the directory of sources: a file's bytes, a link's target, None: directory."""
    synthetic: tuple[str, ...] = ()
    hard_links: tuple[tuple[str, str], ...] = ()
    """Pairs (existing, new) below the directory of sources."""

    def arguments(self, base: Path) -> list[str]:
        """The values of `--dir`, deepest first: their order must not matter."""
        return [
            f"{base / preopen.source}::/{preopen.guest}{'::ro' if preopen.read_only else ''}"
            for preopen in reversed(self.preopens)
        ]

    def fill(self, base: Path) -> None:
        """Bring the sources to their first state.

        Sources keep their inodes, and so does what mount points are mounted on: removing that
        would take the kernel's mounts away.
        """
        kept = {base / path for path in self._mounted_on()}
        kept |= {above for path in kept for above in path.parents}
        for source in {preopen.source for preopen in self.preopens}:
            if (base / source).is_dir():
                _empty(base / source, kept)
        for name, content in self.contents.items():
            _make(base / name, content)
        for existing, new in self.hard_links:
            os.link(base / existing, base / new)

    def _mounted_on(self) -> Iterator[Path]:
        """What mount points cover in the sources around them."""
        guests = [*(preopen.guest for preopen in self.preopens), *self.synthetic]
        for guest in filter(None, guests):
            path = Path(guest)
            around = [p for p in self.preopens if p.guest != guest and path.is_relative_to(p.guest)]
            if around:
                parent = max(around, key=lambda preopen: len(preopen.guest))
                yield Path(parent.source) / path.relative_to(parent.guest)

    def binds(self, base: Path) -> list[Bind]:
        """The bind mounts, in order; makes what they are mounted on."""
        return [bind for _, bind in sorted(self._all_binds(base), key=lambda pair: pair[0])]

    def _all_binds(self, base: Path) -> Iterator[tuple[int, Bind]]:
        for preopen in self.preopens:
            depth = len(Path(preopen.guest).parts)
            yield depth, Bind(str(base / preopen.source), preopen.guest, preopen.read_only)
        for top in self.synthetic:
            scaffold = base / f"scaffold-{top or 'root'}"
            for preopen in self.preopens:
                if preopen.guest != top and Path(preopen.guest).is_relative_to(top):
                    _make_mount_point(
                        scaffold / Path(preopen.guest).relative_to(top), preopen, base
                    )
            for part in (scaffold, *scaffold.rglob("*")):
                part.chmod(0o555)
            yield len(Path(top).parts), Bind(str(scaffold), top, read_only=True)

    def make_mount_points(self, base: Path) -> None:
        """What only bind mounts need in the sources: something to mount a scaffold on."""
        for top in self.synthetic:
            if top:
                (base / self.root_source / top).mkdir(exist_ok=True)

    @property
    def root_source(self) -> str:
        """What is attached at `/`; there is none where the root is synthetic."""
        return next(preopen.source for preopen in self.preopens if not preopen.guest)


def _make(path: Path, content: str | bytes | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if content is None:
        path.mkdir(exist_ok=True)
    elif isinstance(content, bytes):
        path.write_bytes(content)
        path.chmod(0o644)
        os.chown(path, 0, 0)
        for name in os.listxattr(path):
            os.removexattr(path, name)
    else:
        path.symlink_to(content)


def _make_mount_point(place: Path, preopen: Preopen, base: Path) -> None:
    if (base / preopen.source).is_dir():
        place.mkdir(parents=True, exist_ok=True)
    else:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()


def _empty(directory: Path, kept: set[Path]) -> None:
    """Remove what is in DIRECTORY and not KEPT, and what attributes DIRECTORY was given."""
    for entry in list(os.scandir(directory)):
        if Path(entry.path) in kept:
            if entry.is_dir(follow_symlinks=False):
                _empty(Path(entry.path), kept)
        elif entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)
    for name in os.listxattr(directory):
        os.removexattr(directory, name)
    directory.chmod(0o755)
    os.chown(directory, 0, 0)
    os.utime(directory)


_FILES: dict[str, str | bytes | None] = {
    "root/a": b"file a",
    "root/lib/hidden": b"masked by /lib",
    "root/again/hidden": b"masked by /again",
    "root/area/plain": b"in the root source",
    "root/area/link": "plain",
    "root/area/data/hidden": b"masked by /area/data",
    "root/area/note": b"masked by /area/note",
    "lib/one": b"lib one",
    "lib/sub/two": b"lib two",
    "lib/link": "one",
    "data/d": b"data",
    "data/inner/hidden": b"masked by /area/data/inner",
    "inner/i": b"inner",
    "deep/p": b"deep",
    "note": b"a note",
}

_MORE: dict[str, str | bytes | None] = {
    "root/b/a/f": b"deep in the root",
    "data/b/f": b"deep in data",
    "deep/b": None,
}
"""For random sequences, which hardly ever make a tree of some depth by themselves."""

NESTED = Layout(
    preopens=(
        Preopen("root", ""),
        Preopen("lib", "lib", read_only=True),
        Preopen("data", "again"),
        Preopen("data", "area/data"),
        Preopen("note", "area/note"),
        Preopen("inner", "area/data/inner"),
        Preopen("deep", "syn/thetic/deep"),
    ),
    contents={**_FILES, **_MORE},
    synthetic=("syn",),
)
"""A root with everything in it: a read-only preopen, one below another, one source attached twice,
a single file, and one that only synthetic directories lead to."""

NESTED_WITH_ALIASES = Layout(
    NESTED.preopens,
    {**_FILES, "inner/scratch": None},
    NESTED.synthetic,
    hard_links=(("data/d", "inner/twin"), ("lib/one", "root/alias")),
)
"""The same with names of one inode in several sources, one of them read-only, and with a
directory for behaviours that need nothing else."""

ROOTLESS = Layout(
    preopens=(
        Preopen("lib", "lib", read_only=True),
        Preopen("data", "area/data"),
        Preopen("note", "area/note"),
        Preopen("inner", "area/data/inner"),
        Preopen("deep", "area/deep"),
    ),
    contents={
        name: content
        for name, content in {**_FILES, **_MORE}.items()
        if not name.startswith("root/")
    },
    synthetic=("",),
)
"""No preopen at `/`: the root itself is synthetic."""

ONE_PREOPEN = Layout(preopens=(Preopen("root", ""),), contents={"root": None})

"""Who is measured: the directory itself, a kernel bind mount, overlayd and its peers.

Each has a copy of the tree of its own, on one file system, so that none meets what another has
created or had cached.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from support.mounting import detach, is_mounted
from support.processes import wait_until

COMMAND_SECONDS = 60
GONE_SECONDS = 10.0

NATIVE, KERNEL, FUSE = "native", "kernel", "fuse"
"""Kinds of subjects: no mount, one that adds no requests, one that a daemon answers."""

NAMES, DATA = "names", "data"
"""Parts of a run: names, attributes, opens and listings; and what is in files."""


class SubjectError(RuntimeError):
    """A subject could not be mounted or unmounted; the message says which and why."""


@dataclass(frozen=True)
class Recipe:
    """How a subject is mounted: a command made of a source, a target and a spare directory."""

    name: str
    kind: str
    words: Callable[[Path, Path, Path], list[str]]
    version: Sequence[str] = ()
    note: str = "with its defaults"
    parts: tuple[str, ...] = (NAMES, DATA)
    """In which it takes part; in both once it is asked for by name."""
    lacks: Callable[[Path], str] = lambda _: ""
    """Why it cannot take part here, found out in an empty directory; nothing where it can."""


def overlayd_words(*arguments: str) -> list[str]:
    """The command as it is installed beside this interpreter, else the package itself."""
    script = Path(sys.executable).with_name("overlayd")
    program = [str(script)] if script.exists() else [sys.executable, "-m", "overlayd"]
    return [*program, *arguments]


def _overlayd(*options: str) -> Callable[[Path, Path, Path], list[str]]:
    def words(source: Path, target: Path, _: Path) -> list[str]:
        return overlayd_words("mount", *options, "--dir", f"{source}::/", str(target))

    return words


@cache
def _knows_passthrough() -> bool:
    return "--passthrough" in complete(overlayd_words("mount", "--help"))


def _lacks_passthrough(place: Path) -> str:
    """By trying it: the kernel, the rights and the file system all have a say in it."""
    if not _knows_passthrough():
        return "this overlayd has no --passthrough"
    source, target = place / "source", place / "target"
    source.mkdir()
    target.mkdir()
    (source / "file").write_text("x")
    try:
        mount(_overlayd("--passthrough", "require")(source, target, place), target)
        try:
            (target / "file").read_text()
        finally:
            unmount(target)
    except (SubjectError, OSError) as error:
        return str(error)
    return ""


def _ordinary(source: Path, target: Path, spare: Path) -> list[str]:
    options = ["--passthrough", "off"] if _knows_passthrough() else []
    return _overlayd(*options)(source, target, spare)


RECIPES = (
    Recipe("native", NATIVE, lambda _s, _t, _w: [], note="the directory itself"),
    Recipe(
        "bind", KERNEL, lambda s, t, _: ["mount", "--bind", str(s), str(t)], note="mount --bind"
    ),
    Recipe("bindfs", FUSE, lambda s, t, _: ["bindfs", str(s), str(t)], ["bindfs", "--version"]),
    Recipe("overlayd", FUSE, _overlayd(), overlayd_words("--version"), parts=(NAMES,)),
    Recipe(
        "overlayd-passthrough",
        FUSE,
        _overlayd("--passthrough", "require"),
        note="overlayd with --passthrough require",
        parts=(DATA,),
        lacks=_lacks_passthrough,
    ),
    Recipe(
        "overlayd-ordinary",
        FUSE,
        _ordinary,
        note="overlayd with --passthrough off",
        parts=(DATA,),
    ),
    Recipe(
        "mergerfs",
        FUSE,
        lambda s, t, _: ["mergerfs", str(s), str(t)],
        ["mergerfs", "--version"],
        "with its defaults, one branch",
    ),
    Recipe(
        "unionfs",
        FUSE,
        lambda s, t, _: ["unionfs-fuse", "-o", "cow", f"{s}=RW", str(t)],
        ["unionfs-fuse", "--version"],
        "unionfs-fuse -o cow, one branch",
    ),
    Recipe(
        "fuse-overlayfs",
        FUSE,
        lambda s, t, w: [
            *("fuse-overlayfs", "-o"),
            f"lowerdir={w / 'lower'},upperdir={s},workdir={w / 'work'}",
            str(t),
        ],
        ["fuse-overlayfs", "--version"],
        "the tree is its upper directory",
    ),
    Recipe(
        "overlayd-none",
        FUSE,
        _overlayd("--cache", "none"),
        note="overlayd with --cache none",
        parts=(),
    ),
    Recipe(
        "overlayd-1s", FUSE, _overlayd("--cache", "1"), note="overlayd with --cache 1", parts=()
    ),
)


class Subject:
    """One of them, with its copy of the tree and where that is seen."""

    def __init__(self, recipe: Recipe, place: Path) -> None:
        self.name, self.kind, self.parts = recipe.name, recipe.kind, recipe.parts
        self._recipe = recipe
        self._spare = place / "spare"
        self.source = place / "source"
        self.target = self.source if recipe.kind == NATIVE else place / "target"
        for directory in (self.source, self.target, self._spare / "lower", self._spare / "work"):
            directory.mkdir(parents=True, exist_ok=True)

    def words(self, source: Path, target: Path) -> list[str]:
        """The command that mounts SOURCE on TARGET in the subject's way."""
        return self._recipe.words(source, target, self._spare)

    def mount(self) -> None:
        """Show the tree at `target`. Raises SubjectError."""
        if self.kind != NATIVE:
            mount(self.words(self.source, self.target), self.target)

    def unmount(self) -> None:
        """Undo it, by force if need be. Raises SubjectError."""
        if self.kind != NATIVE:
            unmount(self.target)

    def renew(self) -> None:
        """Make the FUSE side know nothing, by another mount: what the host caches stays."""
        if self.kind == FUSE:
            self.unmount()
            self.mount()


def mount(words: Sequence[str], target: Path) -> None:
    """Run a mount command; TARGET is mounted when it is back. Raises SubjectError."""
    try:
        complete(words)
        if not wait_until(lambda: is_mounted(target), GONE_SECONDS):
            raise SubjectError(f"{words[0]} succeeded, and {target} is not mounted")
    except BaseException:  # such as ^C, when the command has mounted it and not yet ended
        unmount(target)
        raise


def unmount(target: Path) -> None:
    """Unmount TARGET as its users do, and lazily where it is busy or dead."""
    if is_mounted(target):
        done = subprocess.run(["umount", target], capture_output=True, check=False, timeout=60)
        if done.returncode:
            detach(target)


def complete(
    words: Sequence[str],
    timeout: float = COMMAND_SECONDS,
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command that must succeed; its standard output. Raises SubjectError."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=env,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SubjectError(f"{words[0]}: not back within {timeout} s") from None
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise SubjectError(f"{' '.join(words)[:200]}: status {done.returncode}: {said[-300:]}")
    return done.stdout


def choose(wanted: Sequence[str]) -> list[Recipe]:
    """Those of WANTED, or all whose program is installed. Raises ValueError for an unknown name."""
    known = {recipe.name: recipe for recipe in RECIPES}
    if unknown := set(wanted) - set(known):
        raise ValueError(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    if wanted:
        return [replace(known[name], parts=(NAMES, DATA)) for name in known if name in wanted]
    installed = [one for one in RECIPES if not one.version or shutil.which(one.version[0])]
    return [recipe for recipe in installed if recipe.parts]


def fit(recipes: Sequence[Recipe], place: Path) -> tuple[list[Recipe], list[str]]:
    """Those that can take part on the file system of PLACE, and why the others cannot."""
    found, left_out = [], []
    for recipe in recipes:
        with tempfile.TemporaryDirectory(dir=place) as empty:
            if reason := recipe.lacks(Path(empty)):
                left_out.append(f"{recipe.name}: {reason}")
            else:
                found.append(recipe)
    return found, left_out


def version_of(recipe: Recipe) -> str:
    """What the program says of its version, or nothing: the line that names it, else the first."""
    if not recipe.version:
        return ""
    done = subprocess.run(recipe.version, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return next((line for line in lines if recipe.name in line), (lines or [""])[0])

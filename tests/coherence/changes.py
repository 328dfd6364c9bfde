"""What a host does behind a mount's back: each thing on a directory that was planted for it."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from support.planting import plant

OLD, NEW = "what it was", "it was what"
"""Of one length: the size gives nothing away."""

FILE = (f"file={OLD}",)
FLAT = (*FILE, "other=the other", "link->file", "empty/")
TREE = ("sub/file=in sub", "sub/deep/file=deep below", "away/")


@dataclass(frozen=True)
class Change:
    """Something to be done to a planted directory. A second directory lies out of guests' sight."""

    do: Callable[[Path, Path], object]
    planted: tuple[str, ...]
    in_place: bool = False
    """It needs nothing but `file`, in whatever directory that has this name."""
    of_data: bool = False
    across: bool = False
    """It moves something over the border of what guests see."""


def of_data(do: Callable[[Path], object]) -> Change:
    return Change(lambda at, _: do(at / "file"), FILE, in_place=True, of_data=True)


def of_attributes(do: Callable[[Path], object]) -> Change:
    return Change(lambda at, _: do(at / "file"), FILE, in_place=True)


def flat(do: Callable[[Path], object]) -> Change:
    return Change(lambda at, _: do(at), FLAT)


def tree(do: Callable[[Path], object]) -> Change:
    return Change(lambda at, _: do(at), TREE)


def across(do: Callable[[Path, Path], object], planted: tuple[str, ...]) -> Change:
    return Change(do, planted, across=True)


def overwrite(path: Path) -> None:
    with path.open("r+") as file:
        file.write(NEW)


def append(path: Path) -> None:
    with path.open("a") as file:
        file.write(" and more")


def overwrite_secretly(path: Path) -> None:
    """Other content, with the size and the mtime it had."""
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def overwrite_mapped(path: Path) -> None:
    """By a mapping: there is no write to be noticed."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), len(OLD)) as mapped:
        mapped[:] = NEW.encode()


def put_file(path: Path) -> None:
    """A file where a directory was."""
    shutil.rmtree(path)
    path.write_text("no directory any more")


def put_directory(path: Path) -> None:
    """A directory where a file was."""
    path.unlink()
    plant(path, "inside=it is a directory now")


def put_link(path: Path) -> None:
    """A link to elsewhere where another was."""
    path.unlink()
    path.symlink_to("other")


def put_atomically(path: Path) -> None:
    """As editors save: a new file over the old one."""
    scratch = path.with_name("scratch")
    scratch.write_text("saved anew")
    scratch.rename(path)


def put_anew(path: Path) -> None:
    """The name of a file for another one."""
    path.unlink()
    path.write_text(NEW)


def out_and_back(path: Path, away: Path) -> None:
    """Move a tree out of sight, change something in it, and put it back."""
    path.rename(away)
    append(away / "deep/file")
    away.rename(path)


def swap_directory(path: Path) -> None:
    """Rename a directory away and put another in its place."""
    path.rename(path.with_name("swapped"))
    plant(path, "file=in the other sub", "fresh=not there before")


def take_turns(path: Path) -> None:
    """Have two files change their names."""
    spare = path.with_name("spare")
    path.rename(spare)
    path.with_name("other").rename(path)
    spare.rename(path.with_name("other"))


IN_PLACE = {
    "overwrite": of_data(overwrite),
    "append": of_data(append),
    "truncate shorter": of_data(lambda file: os.truncate(file, 3)),
    "truncate longer": of_data(lambda file: os.truncate(file, 100)),
    "write anew": of_data(lambda file: file.write_text("all of it")),
    "overwrite, mtime kept": of_data(overwrite_secretly),
    "overwrite mapped": of_data(overwrite_mapped),
    "chmod": of_attributes(lambda file: file.chmod(0o640)),
    "utimens": of_attributes(lambda file: os.utime(file, (1, 2))),
    "setxattr": of_attributes(lambda file: os.setxattr(file, "user.new", b"value")),
    "chown": of_attributes(lambda file: os.chown(file, 12, 34)),
}
ON_NAMES = {
    "new file": flat(lambda at: (at / "new").write_text("new")),
    "new directory": flat(lambda at: plant(at / "new", "inside=new", "more/inside=new")),
    "new link": flat(lambda at: (at / "new").symlink_to("other")),
    "new hard link": flat(lambda at: os.link(at / "file", at / "empty/second")),
    "rename within": flat(lambda at: (at / "file").rename(at / "renamed")),
    "rename to elsewhere": flat(lambda at: (at / "file").rename(at / "empty/file")),
    "rename from elsewhere": tree(lambda at: (at / "sub/file").rename(at / "file")),
    "rename over a file": flat(lambda at: (at / "other").rename(at / "file")),
    "save atomically": flat(lambda at: put_atomically(at / "file")),
    "two files take turns": flat(lambda at: take_turns(at / "file")),
    "unlink": flat(lambda at: (at / "file").unlink()),
    "unlink and create": flat(lambda at: put_anew(at / "file")),
    "mkdir": flat(lambda at: (at / "made").mkdir()),
    "rmdir": flat(lambda at: (at / "empty").rmdir()),
    "chmod of a directory": tree(lambda at: (at / "sub").chmod(0o700)),
    "file to directory": flat(lambda at: put_directory(at / "file")),
    "directory to file": tree(lambda at: put_file(at / "sub")),
    "link replaced": flat(lambda at: put_link(at / "link")),
    "directory swapped": tree(lambda at: swap_directory(at / "sub")),
    "subtree moved": tree(lambda at: (at / "sub").rename(at / "away/sub")),
    "moved, then changed": tree(
        lambda at: append((at / "sub").rename(at / "away/sub") / "deep/file")
    ),
    "tree removed": tree(lambda at: shutil.rmtree(at / "sub")),
}
ACROSS = {
    "file moved in": across(lambda at, out: (plant(out, "in=in") / "in").rename(at / "in"), FLAT),
    "file moved over another": across(
        lambda at, out: (plant(out, f"in={NEW}") / "in").rename(at / "file"), FLAT
    ),
    "file moved out": across(lambda at, out: (at / "file").rename(out / "file"), FLAT),
    "tree moved in": across(lambda at, out: plant(out / "in", "a/b=b").rename(at / "in"), FLAT),
    "tree moved out": across(lambda at, out: (at / "sub").rename(out / "sub"), TREE),
    "tree moved in, then changed": across(
        lambda at, out: append(plant(out / "in", "a/b=b").rename(at / "in") / "a/b"), FLAT
    ),
    "tree moved out, changed, and back": across(
        lambda at, out: out_and_back(at / "sub", out / "sub"), TREE
    ),
}
CHANGES = {**IN_PLACE, **ON_NAMES, **ACROSS}


def names_below(base: Path) -> set[str]:
    """The relative name of all that is in BASE, and `.`."""
    return {".", *(str(path.relative_to(base)) for path in base.rglob("*"))}


def change_more(*roots: Path) -> None:
    """Later on: append to every file below ROOTS, and put a new name into every directory."""
    for root in roots:
        for path in [root, *root.rglob("*")]:
            if path.is_dir() and not path.is_symlink():
                (path / "later").write_text("later")
            elif path.is_file() and not path.is_symlink():
                append(path)


def rehearse(place: Path, change: Change) -> tuple[str, ...]:
    """All names that are there before or after CHANGE, or after what is changed later on."""
    at, out = plant(place / "at", *change.planted), plant(place / "out")
    names = names_below(at)
    change.do(at, out)
    names |= names_below(at)
    change_more(at)
    return tuple(sorted(names | names_below(at)))

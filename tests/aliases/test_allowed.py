"""What stays allowed beside read-only aliases: the rule protects inodes, and nothing else.

Every operation of the matrix succeeds where nothing read-only is concerned, and in a writable
directory the name of a read-only inode can be removed, moved and replaced.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from aliases import operations
from aliases.kinds import Hook, link, nothing, plant
from aliases.snapshot import changes, snapshot
from support.mounting import mounted
from support.processes import NOBODY, User, in_child, outcome

pytestmark = pytest.mark.usefixtures("data_way")

ROOT = User(0, 0)
USERS = pytest.mark.parametrize("user", [NOBODY, ROOT], ids=["owner", "root"])
ORDERS = pytest.mark.parametrize("backwards", [False, True], ids=["", "backwards"])

WRITABLE_FILES: dict[str, tuple[tuple[str, ...], str, Hook]] = {
    "one link": (("ro::/ro::ro", "w::/w"), "w/f", nothing),
    "two links, both writable": (("ro::/ro::ro", "w::/w"), "w/f", link("w/f", "w/again")),
    "two links, one not in the namespace": (("ro::/ro::ro", "w::/w"), "w/f", link("w/f", "p/f2")),
    "masked": (("p::/::ro", "p/out::/out"), "out/f", nothing),
    "two links, both masked": (("p::/::ro", "p/out::/out"), "out/f", link("p/out/f", "p/out/f2")),
    "masked by another": (("p::/p::ro", "w::/p/out", "p/out::/out"), "out/f", nothing),
    "two links, one masked by another": (
        ("p::/p::ro", "w::/p/out", "p/out::/out"),
        "out/f",
        link("p/out/f", "p/out/f2"),
    ),
    "a masked file by itself": (("p::/p::ro", "p/f::/p/f"), "p/f", nothing),
    "a masked file by itself, linked": (("p/out::/p::ro", "p/out/f::/p/f"), "p/f", nothing),
    "a file by itself": (("ro::/ro::ro", "w/f::/a"), "a", nothing),
    "writable below read-only below writable": (
        ("w::/w", "w/sub::/r::ro", "w/sub/d::/r/d"),
        "w/sub/d/f",
        nothing,
    ),
}


@ORDERS
@pytest.mark.parametrize("case", WRITABLE_FILES)
def test_every_change_of_a_writable_file(case: str, backwards: bool, open_path: Path) -> None:
    dirs, name, before = WRITABLE_FILES[case]
    plant(open_path)
    before(open_path)
    preopens = [f"{open_path}/{entry}" for entry in dirs]
    preopens = preopens[::-1] if backwards else preopens
    with mounted(open_path, *preopens, options=["--allow-other"]) as target:
        for user in (NOBODY, ROOT):
            problems = in_child(partial(_change_file, target / name), user=user)
            assert not problems, (user, problems)


def _change_file(path: Path) -> list[str]:
    results: dict[str, str] = {}
    for name, by_path in operations.ON_FILES.items():
        results[name] = outcome(partial(by_path, str(path)))
    fd = os.open(path, os.O_RDONLY)
    os.setxattr(path, "user.kept", b"kept")
    for name, by_handle in operations.ON_HANDLES.items():
        results[name] = outcome(partial(by_handle, fd))
    os.setxattr(fd, "user.kept", b"kept")
    os.close(fd)
    return [f"{name}: {result}" for name, result in results.items() if result != "ok"]


@USERS
def test_every_change_of_a_masked_directory(user: User, open_path: Path) -> None:
    plant(open_path)
    dirs = [f"{open_path}/p::/::ro", f"{open_path}/p/out::/out"]
    with mounted(open_path, *dirs, options=["--allow-other"]) as target:
        names = operations.ways_into(target / "out")
        problems = []
        for name in names:
            result = in_child(partial(outcome, names[name]), user=user)
            problems += [f"{name}: {result}"] if result != "ok" else []
            _restore(open_path / "p/out")
    assert not problems, problems


def _restore(top: Path) -> None:
    """Put back what one operation in `ways_into` changed, for the next."""
    shutil.rmtree(top / "d")
    for path in top.glob("new"):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    (top / "d/e").mkdir(parents=True)
    for name in ("f", "d/f"):
        (top / name).write_text(name)
    if not (top / "l").is_symlink():
        (top / "l").symlink_to("f")
    top.chmod(0o755)
    os.setxattr(top, "user.kept", b"kept")
    for path in (top, *top.rglob("*")):
        os.chown(path, NOBODY.uid, NOBODY.gid, follow_symlinks=False)


NAMES: dict[str, Callable[[Path], None]] = {
    "unlink": lambda w: os.unlink(w / "alias"),
    "rename": lambda w: operations.rename(w / "alias", w / "elsewhere"),
    "rename into a directory": lambda w: operations.rename(w / "alias", w / "sub/alias"),
    "rename over": lambda w: operations.rename(w / "own", w / "alias"),
    "rename of it over another": lambda w: operations.rename(w / "alias", w / "own"),
    "exchange": lambda w: operations.exchange(w / "alias", w / "own"),
    "rename over, without a gap": lambda w: _replace(w / "alias"),
}


def _replace(path: Path) -> None:
    """What editors do: write a new file, rename it into place."""
    fresh = path.with_name("fresh")
    fresh.write_text("new content")
    operations.rename(fresh, path)
    with path.open("a") as stream:
        stream.write(", and more")
    assert path.read_text() == "new content, and more"


@USERS
@pytest.mark.parametrize("way", NAMES)
def test_names_in_a_writable_directory(way: str, user: User, open_path: Path) -> None:
    plant(open_path)
    link("ro/f", "w/alias")(open_path)
    dirs = [f"{open_path}/ro::/ro::ro", f"{open_path}/w::/w"]
    with mounted(open_path, *dirs, options=["--allow-other"]) as target:
        before = snapshot([open_path / "ro"], counts=False)
        names = snapshot([open_path / "w"])
        in_child(lambda: NAMES[way](target / "w"), user=user)
        assert not changes(before, snapshot([open_path / "ro"], counts=False))
        assert changes(names, snapshot([open_path / "w"])), "nothing happened at all"


def test_what_replaced_an_alias_is_writable_and_what_was_replaced_is_not(open_path: Path) -> None:
    plant(open_path)
    link("ro/f", "w/alias")(open_path)
    with mounted(open_path, f"{open_path}/ro::/ro::ro", f"{open_path}/w::/w") as target:
        assert outcome(lambda: os.truncate(target / "w/alias", 0)) == "EROFS"
        operations.exchange(target / "w/alias", target / "w/own")
        assert outcome(lambda: os.truncate(target / "w/alias", 0)) == "ok"
        assert outcome(lambda: os.truncate(target / "w/own", 0)) == "EROFS"
    assert (open_path / "ro/f").read_text() == "f of ro"


def test_an_alias_whose_read_only_name_the_host_takes_away_becomes_writable(
    open_path: Path,
) -> None:
    plant(open_path)
    link("ro/f", "w/alias")(open_path)
    with mounted(open_path, f"{open_path}/ro::/ro::ro", f"{open_path}/w::/w") as target:
        assert outcome(lambda: os.truncate(target / "w/alias", 0)) == "EROFS"
        link("ro/f", "p/kept")(open_path)
        os.unlink(open_path / "ro/f")
        assert outcome(lambda: os.truncate(target / "w/alias", 0)) == "ok"

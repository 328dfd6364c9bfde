"""Changes that the kernel could miss for where they happen, or when."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from coherence import views
from coherence.changes import OLD, append, overwrite_secretly
from coherence.counted import PAUSE
from support.mounting import mounted
from support.planting import plant
from support.processes import attempt, has_ended, in_child, outcome, wait_until
from support.side_by_side import start

pytestmark = pytest.mark.usefixtures("data_way")

SECONDS = 2.0
"""A limit far above what is promised, for busy machines."""


def comes_to(expected: object, look: Callable[[], object]) -> None:
    """LOOK, in a child that looks all the time, tells what is EXPECTED within the limit."""

    def differs() -> object:
        wait_until(lambda: look() == expected, SECONDS)
        return look()

    assert in_child(differs) == expected


def test_host_content_comes_to_be_and_goes_below_a_mount_point(tmp_path: Path) -> None:
    """The way to a mount point is made up only as long as the host has no directory there."""
    root, leaf = plant(tmp_path / "root", "file=root"), plant(tmp_path / "leaf", "file=leaf")
    with mounted(tmp_path, f"{root}::/", f"{leaf}::/a/b") as top:

        def look() -> object:
            return (
                *(sorted(os.listdir(top / "a")), outcome(os.stat, top / "a/host")),
                (top / "a/b/file").read_text(),
            )

        assert in_child(lambda: (look(), look())[1]) == (["b"], "ENOENT", "leaf")
        plant(root, "a/host=of the host", "a/b/masked=never seen")
        comes_to((["b", "host"], "ok", "leaf"), look)
        (root / "a/host").unlink()
        comes_to((["b"], "ENOENT", "leaf"), look)
        plant(root, "a/host=once more")
        comes_to((["b", "host"], "ok", "leaf"), look)
        shutil.rmtree(root / "a")
        comes_to((["b"], "ENOENT", "leaf"), look)


def test_a_source_that_is_moved_on_the_host(tmp_path: Path) -> None:
    """It was resolved when it was mounted: the directory is followed, not its name."""
    source = plant(tmp_path / "source", "file=file", "sub/file=file")
    with mounted(tmp_path, f"{source}::/") as top:

        def look() -> object:
            return sorted(os.listdir(top)), outcome(os.stat, top / "new"), os.stat(top / "sub")[0]

        in_child(lambda: (look(), look()))
        moved = source.rename(tmp_path / "elsewhere")
        plant(tmp_path / "source", "other=of another directory")
        time.sleep(PAUSE)
        in_child(look)
        (moved / "new").touch()
        (moved / "sub").chmod(0o711)
        comes_to((["file", "new", "sub"], "ok", 0o40711), look)


def test_a_link_is_made_from_the_name_that_is_meant(tmp_path: Path) -> None:
    """The kernel tells the daemon which file, and need not look up any of its names for that."""
    one, other = plant(tmp_path / "one", "file=file"), plant(tmp_path / "other")
    os.link(one / "file", other / "file")
    with mounted(tmp_path, f"{one}::/one", f"{other}::/other") as top:

        def attempts() -> list[str]:
            found = []
            for source in ("one", "other", "other", "one"):
                for place in ("one", "other"):
                    new = top / place / "new"
                    found.append(outcome(os.link, top / source / "file", new))
                    if found[-1] == "ok":
                        os.unlink(new)
            return found

        right = ["ok", "EXDEV", "EXDEV", "ok", "EXDEV", "ok", "ok", "EXDEV"]
        for _ in range(3):
            assert in_child(attempts) == right
            time.sleep(PAUSE)
        assert sorted(os.listdir(top / "one")) == sorted(os.listdir(top / "other")) == ["file"]


def test_a_name_outside_that_a_file_gets_later(tmp_path: Path) -> None:
    """What was known under one name is changed through another, which no watched directory has."""
    changes: dict[str, Callable[[Path], object]] = {
        "kept": overwrite_secretly,
        "append": append,
        "chmod": lambda path: path.chmod(0o600),
    }
    source = plant(tmp_path / "source", *(f"{name}={OLD}" for name in changes))
    outside = plant(tmp_path / "outside")
    with mounted(tmp_path, f"{source}::/") as top:
        kinds = (views.HeldContents, views.Mapped, views.Contents, views.Attributes)
        seen, true = ([kind(base, list(changes)) for kind in kinds] for base in (top, source))

        def look(looks: Sequence[views.View]) -> object:
            return {type(view).__name__: view.look() for view in looks}

        try:
            in_child(lambda: (look(seen), look(seen)))
            for name in changes:
                os.link(source / name, outside / name)
            time.sleep(PAUSE)  # the watches are what they will be
            for name, change in changes.items():
                change(outside / name)
            comes_to(look(true), lambda: look(seen))
        finally:
            for view in (*seen, *true):
                view.close()


def test_after_a_reload(tmp_path: Path) -> None:
    """What was known of the source before is forgotten; the one that came is watched."""
    first, second = plant(tmp_path / "first", "old=old"), plant(tmp_path / "second", "new=new")
    config = tmp_path / "overlayd.toml"

    def configure(source: Path, cache: str) -> None:
        config.write_text(f'cache = "{cache}"\n[[dir]]\nhost = "{source}"\nguest = "/"\n')

    def look() -> object:
        return sorted(os.listdir(top)), *(
            outcome(os.stat, top / n) for n in ("old", "new", "later")
        )

    configure(first, "coherent")
    with mounted(tmp_path, options=["--config", str(config)]) as top:
        assert in_child(lambda: (look(), look())[1]) == (["old"], "ok", "ENOENT", "ENOENT")
        configure(second, "none")
        assert attempt("reload", str(top)).returncode == 0
        comes_to((["new"], "ENOENT", "ok", "ENOENT"), look)
        (second / "new").unlink()
        assert in_child(look) == ([], "ENOENT", "ENOENT", "ENOENT")
        configure(second, "coherent")
        assert attempt("reload", str(top)).returncode == 0
        in_child(lambda: (look(), look()))
        time.sleep(PAUSE)
        (second / "later").touch()
        comes_to((["later"], "ENOENT", "ENOENT", "ok"), look)


# -- all at once ----------------------------------------------------------------------------------

SEED = 20
CROWD = [*"abcdef", *(f"{place}/{name}" for place in "abc" for name in "abc")]


MEDDLING: tuple[Callable[[Path, Path], object], ...] = (
    lambda one, _: one.mkdir(),
    lambda one, other: one.write_text(f"beside {other}"),
    lambda one, other: one.rename(other),
    lambda one, _: one.unlink(),
    lambda one, _: one.rmdir(),
    lambda one, _: one.symlink_to("a"),
    lambda one, other: os.link(one, other),
    lambda one, _: overwrite_secretly(one),
    lambda one, other: one.chmod(0o600 + ord(other.name)),
)


def meddle(source: Path, turns: int) -> None:
    """Random changes of a few names, most of which fail for what is there at the time."""
    chance = random.Random(SEED)
    for _ in range(turns):
        one, other = (source / name for name in chance.sample(CROWD, 2))
        with suppress(OSError):
            chance.choice(MEDDLING)(one, other)


def test_guests_that_look_while_the_host_changes_are_right_in_the_end(tmp_path: Path) -> None:
    """An answer may be under way to the kernel while it is told to forget what it is about."""
    source = plant(tmp_path / "source", "a/a=a", "b/b=b", "c=c")
    kinds = (views.Attributes, views.Contents, views.Listings)

    def look(base: Path) -> object:
        return [kind(base, [".", *CROWD]).look() for kind in kinds]

    def look_on() -> None:
        while True:
            look(top)

    with mounted(tmp_path, f"{source}::/") as top:
        guests = [start(look_on) for _ in range(2)]
        for _ in range(3):
            in_child(meddle, source, 3000)
            comes_to(look(source), lambda: look(top))
        for guest in guests:
            os.kill(guest, signal.SIGKILL)
            assert wait_until(lambda guest=guest: has_ended(guest))  # type: ignore[misc]

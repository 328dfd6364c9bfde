"""The target, or something above it, lies inside a source: the namespace would hold itself.

It shows an empty, read-only directory there (SPEC.md section 2). A daemon that asked its own mount
would wait for itself, and take everyone who looks there with it: each access has a time limit.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.isolation import force_off
from support.mounting import mounted
from support.processes import attempt, in_child, tried


@contextmanager
def mounted_at(target: Path, *dirs: str, options: Sequence[str] = ()) -> Iterator[Path]:
    """Mount DIRS on TARGET, wherever that is, and take it off again."""
    flags = [word for entry in dirs for word in ("--dir", entry)]
    done = attempt("mount", *flags, *options, str(target))
    assert done.returncode == 0, done.stderr
    try:
        yield target
    except BaseException:
        force_off(target)
        raise
    done = attempt("umount", str(target))
    assert done.returncode == 0, done.stderr


def make_source(place: Path) -> Path:
    """A source with a file at its top and a place for a target two levels down."""
    (place / "run/here/target").mkdir(parents=True)
    (place / "file").write_text("content")
    (place / "run/beside").write_text("beside")
    return place


def visited(top: Path) -> list[str]:
    """Every path below TOP, as a guest's `find` sees them; ends also where a tree does not."""
    found = []
    for directory, subdirectories, files in os.walk(top, onerror=_raise):
        found += [os.path.relpath(os.path.join(directory, n), top) for n in subdirectories + files]
        assert len(found) < 1000, f"a tree that holds itself: {found[-1]}"
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def assert_empty_and_read_only(place: Path, busy: str = "EBUSY") -> None:
    """What stands for the target can be looked at in every way and changed in none.

    BUSY is what removing it fails with; through a read-only preopen that is EROFS.
    """
    status = in_child(lambda: os.stat(place))
    assert stat.S_IMODE(status.st_mode) == 0o555 and stat.S_ISDIR(status.st_mode)
    assert in_child(lambda: os.listdir(place)) == []
    assert in_child(lambda: os.path.lexists(place / "file")) is False
    attempts: list[tuple[str, Callable[[], object]]] = [
        ("EROFS", lambda: (place / "new").write_text("")),
        ("EROFS", lambda: os.mkdir(place / "new")),
        ("EROFS", lambda: os.symlink("x", place / "new")),
        ("EROFS", lambda: os.chmod(place, 0o777)),
        ("EROFS", lambda: os.utime(place)),
        (busy, lambda: os.rmdir(place)),
        (busy, lambda: os.rename(place, place.with_name("moved"))),
        ("EEXIST", lambda: os.mkdir(place)),
        ("ENOENT", lambda: os.stat(place / "anything")),
    ]
    for expected, call in attempts:
        assert tried(call) == expected


EVERYTHING = ["file", "run", "run/beside", "run/here", "run/here/target"]


@pytest.mark.usefixtures("data_way")
def test_target_inside_the_source_at_the_root(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    with mounted_at(source / "run/here/target", f"{source}::/") as top:
        assert in_child(visited, top) == EVERYTHING
        assert_empty_and_read_only(top / "run/here/target")
        assert in_child(lambda: (top / "file").read_text()) == "content"
        # The guest goes on working beside it, and the host sees the result.
        in_child(lambda: (top / "run/here/new").write_text("x"))
    assert (source / "run/here/new").read_text() == "x"


def test_a_mount_that_goes_by_another_type(tmp_path: Path) -> None:
    """It knows itself by its device, not by what the mount table calls it."""
    source = make_source(tmp_path / "source")
    target, options = source / "run/here/target", ["-o", "subtype=other"]
    done = attempt("mount", "--dir", f"{source}::/", *options, str(target))
    assert done.returncode == 0, done.stderr
    try:
        assert in_child(visited, target) == EVERYTHING
        assert_empty_and_read_only(target / "run/here/target")
    finally:
        force_off(target)


def test_target_directly_below_a_root(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "target").mkdir(parents=True)
    with mounted_at(source / "target", f"{source}::/") as top:
        assert in_child(visited, top) == ["target"]
        assert_empty_and_read_only(top / "target")


def test_target_inside_a_nested_source(tmp_path: Path) -> None:
    outer, inner = tmp_path / "outer", make_source(tmp_path / "inner")
    outer.mkdir()
    with mounted_at(inner / "run/here/target", f"{outer}::/", f"{inner}::/a/b") as top:
        assert in_child(visited, top / "a/b") == EVERYTHING
        assert_empty_and_read_only(top / "a/b/run/here/target")


def test_target_inside_two_sources_at_once(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    dirs = (f"{source}::/all", f"{source}/run::/part", f"{source}/run/here::/one")
    with mounted_at(source / "run/here/target", *dirs) as top:
        assert in_child(visited, top / "all") == EVERYTHING
        for place in ("all/run/here/target", "part/here/target", "one/target"):
            assert_empty_and_read_only(top / place)


def test_target_inside_a_read_only_source(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    with mounted_at(source / "run/here/target", f"{source}::/::ro") as top:
        assert in_child(visited, top) == EVERYTHING
        assert_empty_and_read_only(top / "run/here/target", busy="EROFS")


@pytest.mark.usefixtures("data_way")
def test_mount_points_above_the_place_of_the_target(tmp_path: Path) -> None:
    """A mount point below the target's place: the table decides, not the daemon's own mount."""
    source, other = make_source(tmp_path / "source"), tmp_path / "other"
    other.mkdir()
    (other / "inside").write_text("other")
    dirs = (f"{source}::/", f"{other}::/run/here/target/deep")
    with mounted_at(source / "run/here/target", *dirs) as top:
        assert in_child(lambda: os.listdir(top / "run/here/target")) == ["deep"]
        deep = top / "run/here/target/deep"
        assert in_child(lambda: (deep / "inside").read_text()) == "other"
        assert tried(os.mkdir, deep.with_name("new")) == "EROFS"


@pytest.mark.usefixtures("data_way")
def test_target_masked_by_a_mount_point(tmp_path: Path) -> None:
    source, cover = make_source(tmp_path / "source"), make_source(tmp_path / "cover")
    with mounted_at(source / "run/here/target", f"{source}::/", f"{cover}::/run") as top:
        assert in_child(visited, top / "run") == EVERYTHING
        in_child(lambda: (top / "run/run/here/target/new").write_text("no target here"))


@pytest.mark.usefixtures("data_way")
@pytest.mark.parametrize("guest", ["/", "/deep/below"])
def test_target_is_the_source_itself(tmp_path: Path, guest: str) -> None:
    """Mounted over its own source: the source is what was there before."""
    source = make_source(tmp_path / "source")
    target, dirs = source, f"{source}::{guest}"
    with mounted_at(target, dirs, options=["-o", "nonempty"]) as top:
        shown = top / guest.lstrip("/")
        assert in_child(visited, shown) == EVERYTHING
        in_child(lambda: (shown / "new").write_text("x"))
        assert in_child(lambda: (shown / "new").read_text()) == "x"
    assert (source / "new").read_text() == "x"


def test_the_file_system_root_as_a_source(tmp_path: Path) -> None:
    """`--dir /::/host`: every directory above the target is inside the source."""
    target = tmp_path / "target"
    target.mkdir()
    with mounted_at(target, "/::/host::ro") as top:
        shown = Path(f"{top}/host{target}")
        assert in_child(lambda: sorted(os.listdir(shown.parent))) == ["target"]
        assert in_child(lambda: os.listdir(shown)) == []


def test_the_host_binds_the_target_elsewhere_afterwards(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    (source / "late").mkdir()
    with mounted_at(source / "run/here/target", f"{source}::/") as top:
        in_child(lambda: os.listdir(top / "late"))  # known as an ordinary directory before
        subprocess.run(["mount", "--bind", str(top), str(source / "late")], check=True, timeout=10)
        try:
            in_child(lambda: _until_empty_mode(top / "late"))
            assert_empty_and_read_only(top / "late")
            assert "late/file" not in in_child(visited, top)
        finally:
            subprocess.run(["umount", "-l", str(source / "late")], check=True, timeout=10)


def _until_empty_mode(place: Path) -> None:
    while stat.S_IMODE(os.stat(place).st_mode) != 0o555:
        pass


@pytest.mark.usefixtures("data_way")
def test_the_host_binds_part_of_the_target_into_a_source(tmp_path: Path) -> None:
    """Not the root of the mount but a directory inside it, and a file of it."""
    source = make_source(tmp_path / "source")
    (source / "late").mkdir()
    (source / "late-file").touch()
    with mounted_at(source / "run/here/target", f"{source}::/", options=["--cache", "none"]) as top:
        pairs = ((top / "run", source / "late"), (top / "file", source / "late-file"))
        for what, where in pairs:
            subprocess.run(["mount", "--bind", str(what), str(where)], check=True, timeout=10)
        try:
            assert_empty_and_read_only(top / "late")
            shown = tried((top / "late-file").read_text)
            assert shown != "ok"  # whatever it is called, it is not the mount looking at itself
            assert in_child(lambda: "file" in os.listdir(top))
        finally:
            for _, where in pairs:
                subprocess.run(["umount", "-l", str(where)], check=True, timeout=10)


@pytest.mark.usefixtures("data_way")
def test_two_mounts_whose_sources_hold_each_others_targets(tmp_path: Path) -> None:
    one, two = make_source(tmp_path / "one"), make_source(tmp_path / "two")
    first, second = two / "run/here/target", one / "run/here/target"
    with mounted_at(first, f"{one}::/") as a, mounted_at(second, f"{two}::/") as b:
        for top in (a, b):
            assert in_child(visited, top, seconds=20) == EVERYTHING
            assert_empty_and_read_only(top / "run/here/target")
            assert in_child((top / "file").read_text) == "content"
        below = Path(*["run/here/target"] * 40)
        assert tried(os.stat, a / below) == "ENOENT"
        in_child(lambda: (b / "file").write_text("changed"))
    assert (two / "file").read_text() == "changed"


@pytest.mark.usefixtures("data_way")
def test_a_mount_on_a_mount_still_shows(tmp_path: Path) -> None:
    """A source that lies on another overlayd mount is no recursion."""
    source = make_source(tmp_path / "source")
    with (
        mounted(tmp_path, f"{source}::/") as lower,
        mounted(tmp_path, f"{lower}::/", f"{lower}/run::/again") as upper,
    ):
        assert in_child((upper / "file").read_text) == "content"
        assert in_child(visited, upper / "run") == ["beside", "here", "here/target"]
        assert in_child((upper / "again/beside").read_text) == "beside"


def test_it_can_be_explained_and_mounted_again_afterwards(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source")
    target = source / "run/here/target"
    numbers = []
    for _ in range(2):
        with mounted_at(target, f"{source}::/") as top:
            numbers.append(in_child(os.stat, top / "run/here/target").st_ino)
            # From outside, the very same paths: `check` and `explain` must not hang either.
            assert attempt("explain", "--dir", f"{source}::/", "/run/here/target").returncode == 0
            assert attempt("check", "--dir", f"{source}::/").returncode == 0
    assert numbers[0] == numbers[1]

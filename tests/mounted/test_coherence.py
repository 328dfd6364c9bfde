"""What the host changes behind the mount's back: seen in time, under each kind of caching."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from support.live import make_dirs
from support.mounting import mounted
from support.processes import in_child, tried

COHERENT_SECONDS = 0.1
SLACK_SECONDS = 0.1
"""A busy test machine is late; a cache of a second would still be found out."""


class Change:
    """Something the host does, and how a guest can tell."""

    def __init__(self, do: Callable[[Path], object], shows: Callable[[Path], bool]) -> None:
        self.do = do
        self.shows = shows


def missing(path: Path) -> bool:
    return not os.path.lexists(path)


def put_directory(path: Path) -> None:
    """A directory where a file was."""
    path.unlink()
    path.mkdir()


def put_link(path: Path, target: str) -> None:
    """A link to TARGET where another was."""
    path.unlink()
    path.symlink_to(target)


CHANGES = {
    "new file": Change(
        lambda host: (host / "new").touch(), lambda top: os.path.lexists(top / "new")
    ),
    "removed file": Change(
        lambda host: (host / "file").unlink(), lambda top: missing(top / "file")
    ),
    "removed directory": Change(
        lambda host: (host / "sub").rmdir(), lambda top: missing(top / "sub")
    ),
    "mode": Change(
        lambda host: os.chmod(host / "file", 0o600),
        lambda top: os.stat(top / "file").st_mode & 0o777 == 0o600,
    ),
    "content and size": Change(
        lambda host: (host / "file").write_text("a longer content"),
        lambda top: (top / "file").read_text() == "a longer content",
    ),
    "content of equal size": Change(
        lambda host: (host / "file").write_text("SOURCE"),
        lambda top: (top / "file").read_text() == "SOURCE",
    ),
    "shorter": Change(
        lambda host: os.truncate(host / "file", 1), lambda top: (top / "file").read_text() == "s"
    ),
    "replaced by rename": Change(
        lambda host: os.rename(host / "other", host / "file"),
        lambda top: (top / "file").read_text() == "other",
    ),
    "file becomes directory": Change(
        lambda host: put_directory(host / "file"),
        lambda top: (top / "file").is_dir(),
    ),
    "retargeted link": Change(
        lambda host: put_link(host / "link", "elsewhere"),
        lambda top: os.readlink(top / "link") == "elsewhere",
    ),
    "renamed directory": Change(
        lambda host: os.rename(host / "sub", host / "moved"),
        lambda top: missing(top / "sub") and (top / "moved").is_dir(),
    ),
    "listing": Change(lambda host: (host / "new").touch(), lambda top: "new" in os.listdir(top)),
}
every_change = pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())


def prepared(place: Path) -> Path:
    (source,) = make_dirs(place, "source")
    (source / "sub").mkdir()
    (source / "other").write_text("other")
    (source / "link").symlink_to("file")
    return source


def warm(top: Path) -> None:
    """Have the kernel know all there is, absent names included."""
    for _ in range(2):
        for name in os.listdir(top):
            with suppress(OSError):
                (top / name).read_bytes()
        for name in os.listdir(top):
            os.lstat(top / name)  # last: reading makes the kernel ask for the access time
        os.readlink(top / "link")
        missing(top / "new")
        missing(top / "moved")


def seen_after(top: Path, change: Change, limit: float) -> float:
    """Seconds until a guest that looks all the time sees CHANGE."""
    began = time.monotonic()
    while True:
        with suppress(OSError):
            if change.shows(top):
                return time.monotonic() - began
        if time.monotonic() - began > limit:
            return float("inf")


@every_change
def test_in_coherent_mode_within_a_tenth_of_a_second(tmp_path: Path, change: Change) -> None:
    source = prepared(tmp_path)
    with mounted(tmp_path, f"{source}::/") as top:
        in_child(lambda: warm(top))
        change.do(source)
        assert in_child(lambda: seen_after(top, change, 5)) <= COHERENT_SECONDS + SLACK_SECONDS


@every_change
def test_without_a_cache_at_once(tmp_path: Path, change: Change) -> None:
    source = prepared(tmp_path)
    with mounted(tmp_path, f"{source}::/", options=["--cache", "none"]) as top:
        in_child(lambda: warm(top))
        change.do(source)
        assert in_child(lambda: change.shows(top))


def test_with_seconds_after_them_and_hardly_before(tmp_path: Path) -> None:
    source = prepared(tmp_path)
    with mounted(tmp_path, f"{source}::/", options=["--cache", "1"]) as top:
        in_child(lambda: warm(top))
        started = time.monotonic()
        os.stat(top / "file")
        for name in ("mode", "removed directory", "new file"):
            CHANGES[name].do(source)
        for name in ("mode", "removed directory", "new file"):
            assert in_child(seen_after, top, CHANGES[name], 5) <= 1 + SLACK_SECONDS
        # That it was cached at all: the mode was asked for just before it changed.
        assert time.monotonic() - started > 0.5


def test_the_file_handle_a_guest_has_open_follows_the_host(tmp_path: Path) -> None:
    source = prepared(tmp_path)
    with mounted(tmp_path, f"{source}::/") as top, (top / "file").open("rb") as held:
        assert held.read() == b"source"
        (source / "file").write_text("overwritten")
        time.sleep(COHERENT_SECONDS + SLACK_SECONDS)
        assert os.fstat(held.fileno()).st_size == len("overwritten")
        assert os.pread(held.fileno(), 100, 0) == b"overwritten"


def test_a_directory_handle_survives_a_rename_on_the_host(tmp_path: Path) -> None:
    source = prepared(tmp_path)
    with mounted(tmp_path, f"{source}::/") as top:
        fd = os.open(top / "sub", os.O_RDONLY)
        try:
            os.rename(source / "sub", source / "renamed")
            (source / "renamed/inside").touch()
            time.sleep(COHERENT_SECONDS + SLACK_SECONDS)
            assert in_child(lambda: os.listdir(fd)) == ["inside"]
            assert in_child(lambda: os.stat("inside", dir_fd=fd).st_size) == 0
        finally:
            os.close(fd)


def test_a_source_that_the_host_removes(tmp_path: Path) -> None:
    """ENOENT or ESTALE, never a crash, and the other mount points are none the worse for it."""
    outer, inner = make_dirs(tmp_path, "outer", "inner")
    with mounted(tmp_path, f"{outer}::/", f"{inner}::/inner") as top:
        assert in_child(lambda: (top / "inner/file").read_text()) == "inner"
        (inner / "file").unlink()
        inner.rmdir()
        time.sleep(COHERENT_SECONDS + SLACK_SECONDS)
        for call in (
            lambda: os.stat(top / "inner/file"),
            lambda: (top / "inner/new").touch(),
            lambda: os.mkdir(top / "inner/new"),
        ):
            assert tried(call) in ("ENOENT", "ESTALE")
        assert tried(os.listdir, top / "inner") in ("ok", "ENOENT")
        assert in_child(lambda: (top / "file").read_text()) == "outer"


def test_two_guests_see_each_others_changes_at_once(tmp_path: Path) -> None:
    """Through one mount there is one kernel cache: nothing to wait for, whatever is cached."""
    source = prepared(tmp_path)
    with mounted(tmp_path, f"{source}::/", options=["--cache", "60"]) as top:
        in_child(lambda: warm(top))
        in_child(lambda: (top / "file").write_text("by the first"))
        assert in_child(lambda: (top / "file").read_text()) == "by the first"
        in_child(lambda: os.rename(top / "file", top / "new"))
        assert in_child(lambda: (missing(top / "file"), (top / "new").read_text())) == (
            True,
            "by the first",
        )

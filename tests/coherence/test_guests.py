"""What guests share with each other, keep over the host's changes, and what a clock keeps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from coherence.counted import counted
from support.live import make_dirs
from support.mounting import mounted
from support.processes import in_child, outcome, tried, wait_until

pytestmark = pytest.mark.usefixtures("data_way")

SECONDS = 2.0
"""A limit far above what is promised, for busy machines."""


def test_what_a_clock_keeps_is_kept_until_then(tmp_path: Path) -> None:
    """Attributes, names and absent names: the host changes them all, and nobody asks."""
    (source,) = make_dirs(tmp_path, "source")
    (source / "gone").touch()

    def look() -> tuple[int, str, str]:
        mode = os.stat(mount.top / "file").st_mode & 0o777
        return mode, outcome(os.stat, mount.top / "gone"), outcome(os.stat, mount.top / "new")

    with counted(tmp_path, f"{source}::/", cache="60") as mount:
        before = in_child(look)
        (source / "file").chmod(0o600)
        (source / "gone").unlink()
        (source / "new").touch()
        assert not mount.of(look)
        assert in_child(look) == before == (0o644, "ok", "ENOENT")


def test_a_directory_handle_survives_a_rename_on_the_host(tmp_path: Path) -> None:
    (source,) = make_dirs(tmp_path, "source")
    (source / "sub").mkdir()
    with mounted(tmp_path, f"{source}::/") as top:
        fd = os.open(top / "sub", os.O_RDONLY)
        try:
            os.rename(source / "sub", source / "renamed")
            (source / "renamed/inside").touch()
            assert in_child(wait_until, lambda: os.listdir(fd) == ["inside"], SECONDS)
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
        gone = ("ENOENT", "ESTALE")
        assert in_child(wait_until, lambda: outcome(os.stat, top / "inner/file") in gone, SECONDS)
        for call in (
            lambda: os.stat(top / "inner/file"),
            lambda: (top / "inner/new").touch(),
            lambda: os.mkdir(top / "inner/new"),
        ):
            assert tried(call) in gone
        assert tried(os.listdir, top / "inner") in ("ok", "ENOENT")
        assert in_child(lambda: (top / "file").read_text()) == "outer"


def test_two_guests_see_each_others_changes_at_once(tmp_path: Path) -> None:
    """Through one mount there is one kernel cache: nothing to wait for, whatever is cached."""
    (source,) = make_dirs(tmp_path, "source")

    def look() -> tuple[str, str]:
        return outcome(os.stat, top / "file"), outcome(os.stat, top / "new")

    with mounted(tmp_path, f"{source}::/", options=["--cache", "60"]) as top:
        assert in_child(look) == ("ok", "ENOENT")
        in_child(lambda: (top / "file").write_text("by the first"))
        assert in_child(lambda: (top / "file").read_text()) == "by the first"
        in_child(lambda: os.rename(top / "file", top / "new"))
        assert in_child(look) == ("ENOENT", "ok")
        assert in_child(lambda: (top / "new").read_text()) == "by the first"

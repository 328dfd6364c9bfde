"""Opening the host side of a table: what is refused, and how it is told (SPEC.md section 2)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from overlayd.errors import UsageError
from overlayd.host.sources import Source, find_overlapping, open_sources
from overlayd.table.mount_tree import build_table
from overlayd.table.preopen import parse_preopen
from support.planting import plant


def opened(*dirs: str) -> tuple[Source, ...]:
    return open_sources(build_table(parse_preopen(text) for text in dirs))


def complaint(*dirs: str) -> str:
    with pytest.raises(UsageError) as caught:
        opened(*dirs)
    words = str(caught.value)
    assert words.isprintable()
    assert words.startswith("--dir "), "an error names its entry"
    return words


def test_a_directory_and_a_regular_file(tmp_path: Path) -> None:
    plant(tmp_path, "a/", "f=text")
    root, file = opened(f"{tmp_path}/a::/", f"{tmp_path}/f::/f")
    assert root.stat.is_dir
    assert stat.S_ISREG(file.stat.mode)


def test_a_missing_host(tmp_path: Path) -> None:
    words = complaint(f"{tmp_path}/none::/x")
    assert f"--dir {tmp_path}/none::/x" in words
    assert "no such file or directory" in words


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_neither_a_directory_nor_a_regular_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / kind
    types = {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK, "device": stat.S_IFCHR}
    os.mknod(path, types[kind] | 0o600, os.makedev(1, 3))
    assert "neither a directory nor a regular file" in complaint(f"{path}::/x")


def test_a_dangling_link_as_host(tmp_path: Path) -> None:
    plant(tmp_path, "l->none")
    assert "no such file" in complaint(f"{tmp_path}/l::/x")


def test_a_link_as_host_is_resolved_once(tmp_path: Path) -> None:
    plant(tmp_path, "a/", "b/", "l->a")
    (source,) = opened(f"{tmp_path}/l::/")
    (tmp_path / "l").unlink()
    plant(tmp_path, "l->b")
    assert source.stat.ino == (tmp_path / "a").stat().st_ino


def test_one_bad_entry_among_good_ones_is_the_one_named(tmp_path: Path) -> None:
    plant(tmp_path, "a/")
    assert complaint(f"{tmp_path}/a::/", f"{tmp_path}/b::/b", f"{tmp_path}/a::/c").startswith(
        f"--dir {tmp_path}/b::/b"
    )


# -- slips ---------------------------------------------------------------------------------------


def test_guest_and_host_swapped(tmp_path: Path) -> None:
    plant(tmp_path, "a/")
    words = complaint(f"/no/such/guest::{tmp_path}/a")
    assert f"did you mean --dir {tmp_path}/a::/no/such/guest?" in words


@pytest.mark.parametrize("text", ["/no/guest:{}/a", "{}/a:/no/guest"])
def test_another_tools_single_colon(tmp_path: Path, text: str) -> None:
    plant(tmp_path, "a/")
    words = complaint(text.format(tmp_path))
    assert f"--dir {tmp_path}/a::/no/guest" in words


# -- what lies on the way to a mount point ------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "kind"),
    [("a/x=file", "is not a directory"), ("a/x->y", "is a symbolic link")],
)
def test_a_file_or_link_on_the_way(tmp_path: Path, entry: str, kind: str) -> None:
    plant(tmp_path, entry, "a/y/", "b/")
    words = complaint(f"{tmp_path}/a::/g", f"{tmp_path}/b::/g/x/m")
    assert f"--dir {tmp_path}/b::/g/x/m" in words
    assert "passes through 'x'" in words, "it says which component"
    assert f"{tmp_path}/a/x" in words, "it says which source"
    assert kind in words


@pytest.mark.parametrize("entry", ["a/x=file", "a/x->y", "a/x/", "a/other="])
def test_the_last_component_may_be_anything_or_nothing(tmp_path: Path, entry: str) -> None:
    plant(tmp_path, entry, "b/")
    assert len(opened(f"{tmp_path}/a::/", f"{tmp_path}/b::/x")) == 2


def test_missing_components_are_fine(tmp_path: Path) -> None:
    plant(tmp_path, "a/", "b/")
    assert len(opened(f"{tmp_path}/a::/", f"{tmp_path}/b::/x/y/z")) == 2
    assert not list((tmp_path / "a").iterdir()), "nothing is created on the host"


def test_a_link_hidden_by_a_nearer_mount_point_is_no_obstacle(tmp_path: Path) -> None:
    plant(tmp_path, "a/x->y", "b/m/", "c/")
    assert len(opened(f"{tmp_path}/a::/", f"{tmp_path}/b::/x", f"{tmp_path}/c::/x/m")) == 3


def test_a_file_cannot_be_the_root(tmp_path: Path) -> None:
    plant(tmp_path, "f=text")
    assert "cannot be the root" in complaint(f"{tmp_path}/f::/")


def test_a_file_cannot_hold_a_mount_point(tmp_path: Path) -> None:
    plant(tmp_path, "f=text", "b/")
    words = complaint(f"{tmp_path}/f::/f", f"{tmp_path}/b::/f/x")
    assert f"--dir {tmp_path}/b::/f/x" in words
    assert f"--dir {tmp_path}/f::/f" in words


# -- sources that share directories -------------------------------------------------------------


def test_overlapping_sources(tmp_path: Path) -> None:
    plant(tmp_path, "p/out/", "q/")
    apart = opened(f"{tmp_path}/p::/p", f"{tmp_path}/q::/q")
    assert find_overlapping(apart) == frozenset()
    above = opened(f"{tmp_path}/p::/a", f"{tmp_path}/p/out::/b", f"{tmp_path}/q::/c")
    assert find_overlapping(above) == {0, 1}
    twice = opened(f"{tmp_path}/p::/a", f"{tmp_path}/p::/b", f"{tmp_path}/q::/c")
    assert find_overlapping(twice) == {0, 1}

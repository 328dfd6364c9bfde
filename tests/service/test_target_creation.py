"""`-o x-mount.mkdir`, as mount(8) has it: a missing target is made once a dead mount is gone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.live import daemon_of, is_live, kill, make_dirs, mount
from support.mounting import overlayd
from support.processes import attempt, complaint


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_dirs(tmp_path, "source")[0]


@pytest.mark.parametrize(
    ("option", "mode"), [("x-mount.mkdir", 0o755), ("x-mount.mkdir=1555", 0o1555)]
)
def test_a_missing_target_is_made(source: Path, tmp_path: Path, option: str, mode: int) -> None:
    target = tmp_path / "above" / "between" / "target"
    before = os.umask(0)  # neither a tight nor a loose one may show in what is made
    try:
        mount(target, source, "-o", option)
    finally:
        os.umask(before)
    assert is_live(target)
    overlayd("umount", str(target))
    assert mode_of(target) == mode
    assert [mode_of(above) for above in (target.parent, target.parent.parent)] == [0o755] * 2
    assert list(target.iterdir()) == []


def test_an_existing_target_keeps_its_mode(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    mount(target, source, "-o", "x-mount.mkdir=0555")
    overlayd("umount", str(target))
    assert mode_of(target) == 0o700


def test_a_dead_mount_is_cleared_before_the_target_is_looked_for(
    source: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    kill(mount(target, source, "-o", "x-mount.mkdir=0555"))
    with pytest.raises(OSError, match=r"not connected|connection abort"):
        os.listdir(target)
    mount(target, source, "--replace", "-o", "x-mount.mkdir=0555")
    assert is_live(target)
    kill(daemon_of(target))
    overlayd("umount", str(target))
    assert mode_of(target) == 0o555


def test_where_nothing_can_be_made(source: Path) -> None:
    target = source / "file" / "target"
    done = attempt("mount", "-o", "x-mount.mkdir", "--dir", f"{source}::/", str(target))
    assert f"target {target} cannot be created: " in complaint(done, 1)

"""Reading /proc/self/mountinfo."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from overlayd.host import mounts
from overlayd.host.mounts import Mount, mount_at, read_mounts

LINE = rb"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue"


def changed(mount: Mount, **fields: Any) -> Mount:
    return Mount(**{name: getattr(mount, name) for name in Mount.__slots__} | fields)


def test_the_example_of_the_manual_page() -> None:
    parsed = mounts._parse(LINE + b"\n")
    assert parsed == Mount(36, os.makedev(98, 0), b"/mnt1", b"/mnt2", "ext3", "/dev/root")


@pytest.mark.parametrize("optional", [b"", b"shared:1 ", b"shared:1 master:2 propagate_from:3 "])
def test_any_number_of_optional_fields(optional: bytes) -> None:
    line = b"1 0 0:40 / /t rw " + optional + b"- fuse.overlayd src rw\n"
    assert mounts._parse(line) == Mount(1, os.makedev(0, 40), b"/", b"/t", "fuse.overlayd", "src")


def test_octal_escapes() -> None:
    line = rb"1 0 0:40 /a\040b /t\011\012\134040\303\244 rw - tmpfs s\040t rw"
    parsed = mounts._parse(line)
    assert parsed.root == b"/a b"
    assert parsed.mount_point == b"/t\t\n\\040\xc3\xa4", "what an escape yields is not escaped"
    assert parsed.source == "s t"


def test_bytes_that_are_no_text() -> None:
    assert mounts._parse(b"1 0 0:40 / /\xff rw - tmpfs \xfe rw").mount_point == b"/\xff"


def test_an_empty_source() -> None:
    assert mounts._parse(b"1 0 0:40 / /t rw - tmpfs  rw\n").source == ""


@pytest.mark.parametrize("fs_type", ["nfs", "nfs4", "cifs", "9p", "fuse", "fuseblk", "fuse.sshfs"])
def test_file_systems_that_may_block(fs_type: str) -> None:
    assert changed(mounts._parse(LINE), fs_type=fs_type).may_block


@pytest.mark.parametrize("fs_type", ["ext4", "btrfs", "tmpfs", "overlay", "proc", "fusectl"])
def test_file_systems_that_answer_at_once(fs_type: str) -> None:
    assert not changed(mounts._parse(LINE), fs_type=fs_type).may_block


def test_the_mounts_of_this_process() -> None:
    found = read_mounts()
    assert b"/" in {mount.mount_point for mount in found}
    assert os.stat("/proc").st_dev in {m.dev for m in found if m.mount_point == b"/proc"}


def test_the_topmost_mount_on_a_path_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = os.fsencode(tmp_path / "t")
    below = changed(mounts._parse(LINE), mount_point=target, mount_id=1)
    top = changed(below, mount_id=2)
    other = changed(below, mount_point=target + b"x", mount_id=3)
    monkeypatch.setattr(mounts, "read_mounts", lambda: [below, top, other])
    assert mount_at(str(tmp_path / "t")) == top
    assert mount_at(f"{tmp_path}/./t/") == top
    assert mount_at(str(tmp_path)) is None


def test_only_the_parent_of_a_target_is_resolved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    target = changed(mounts._parse(LINE), mount_point=os.fsencode(tmp_path / "real" / "t"))
    monkeypatch.setattr(mounts, "read_mounts", lambda: [target])
    assert mount_at(str(tmp_path / "link" / "t")) == target

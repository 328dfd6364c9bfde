"""What a judgement rests on, where only a moment or an unusual host tells right from wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from aliases.kinds import link, plant
from aliases.operations import exchange, rename
from aliases.private_mounts import bind, in_private_mounts, mount_overlay, mount_tmpfs
from overlayd.core.types import Changes
from overlayd.host import fs, mounts
from support.core_guest import Guest
from support.mounting import mounted
from support.processes import NOBODY, in_child, outcome


def why(guest: Guest, path: str) -> str:
    """Why PATH may not be changed."""
    with guest.overlay.namespace.patience():
        guest_path = guest.number(path)
        node = guest.overlay.namespace.nodes.get(guest_path)
        aliasing = guest.overlay.access._aliasing
        fd = guest.overlay.namespace.open_path(node)
        return aliasing.file(node, fd, fs.stat_fd(fd)) or "writable"


def test_a_name_whose_removal_is_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel lowers the link count first, and for a moment still gives the name."""
    plant(tmp_path)
    link("ro/f", "w/alias")(tmp_path)
    guest = Guest(f"{tmp_path}/ro::/ro::ro", f"{tmp_path}/w::/w")
    space = guest.overlay.namespace
    node = space.nodes.get(guest.number("/w/alias"))
    fd = space.open_path(node)
    status = fs.stat_fd(fd)._replace(nlink=1)

    def finish(directory: fs.Fd, name: bytes) -> bool:
        os.unlink(tmp_path / "w/alias")
        return True

    monkeypatch.setattr(fs, "await_names", finish)
    with space.patience():
        reason = guest.overlay.access._aliasing.file(node, fd, status)
    assert reason == "another hard link of the same file is shown read-only"


def test_waiting_for_names_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "name").write_text("content")
    before = tmp_path.stat()
    directory = fs.open_ambient(str(tmp_path))
    assert fs.await_names(directory, b"name")
    assert not fs.await_names(directory, b"none")
    assert tmp_path.stat() == before
    assert (tmp_path / "name").read_text() == "content"


def test_a_writable_file_pays_no_walk_for_its_only_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path)
    guest = Guest(f"{tmp_path}/ro::/ro::ro", f"{tmp_path}/w::/w", f"{tmp_path}/p/f::/single")
    monkeypatch.setattr(fs, "reopen", lambda *_: pytest.fail("something was opened for a walk"))
    for path in ("/w/f", "/w/d/f", "/single"):
        guest.change(path, Changes(mode=0o640))  # and in this thread, which may not wait
    os.rename(tmp_path / "w/d", tmp_path / "w/moved")
    guest.change("/w/moved/f", Changes(mode=0o640))


def test_a_judgement_is_made_again_when_the_read_only_source_moves(tmp_path: Path) -> None:
    """The same directory at the same path, and now below the read-only source."""
    plant(tmp_path)
    guest = Guest(f"{tmp_path}/ro::/ro::ro", f"{tmp_path}/w::/w")
    assert guest.may_change("/w/sub/d") and guest.may_change("/w/sub/d/f")
    exchange(tmp_path / "ro", tmp_path / "w/sub")
    exchange(tmp_path / "ro/d", tmp_path / "w/sub/d")
    assert not guest.may_change("/w/sub/d")
    assert not guest.may_change("/w/sub/d/f")


def test_what_leaves_the_read_only_source_becomes_writable(tmp_path: Path) -> None:
    plant(tmp_path)
    rename(tmp_path / "w/sub", tmp_path / "ro/in")
    guest = Guest(f"{tmp_path}/ro::/ro::ro", f"{tmp_path}/w::/w")
    assert not guest.may_change("/ro/in/d")
    rename(tmp_path / "ro/in", tmp_path / "w/sub")
    assert guest.may_change("/w/sub/d") and guest.may_change("/w/sub/d/f")


def test_part_of_a_source_that_cannot_be_read(open_path: Path) -> None:
    """A daemon of an ordinary user: what it cannot look into may hold any link."""
    plant(open_path)
    link("w/f", "w/again")(open_path)
    (open_path / "ro/closed").mkdir(mode=0o700)
    dirs = (f"{open_path}/ro::/ro::ro", f"{open_path}/w::/w")
    reason = in_child(lambda: why(Guest(*dirs), "/w/again"), user=NOBODY)
    assert reason.endswith("cannot be told: Permission denied")
    assert in_child(lambda: why(Guest(*dirs), "/w/own"), user=NOBODY) == "writable"
    (open_path / "ro/closed").chmod(0o755)
    assert in_child(lambda: why(Guest(*dirs), "/w/again"), user=NOBODY) == "writable"


# -- mounts -------------------------------------------------------------------------------------


def _in_private(scene: Callable[[Path], None], place: Path) -> None:
    in_private_mounts(lambda: scene(place))


def test_a_read_only_source_that_is_unmounted_under_us(open_path: Path) -> None:
    _in_private(_lose_source, open_path)


def _lose_source(place: Path) -> None:
    """Nobody can tell any more what of its file system is shown read-only."""
    mount_tmpfs(place / "one")
    plant(place / "one")
    plant(place / "two")
    bind(place / "one", place / "bound")
    guest = Guest(f"{place}/one/ro::/ro::ro", f"{place}/bound/w::/w", f"{place}/two/w::/other")
    assert guest.may_change("/w/f") and guest.may_change("/w/d")
    mounts.detach(str(place / "one"))
    assert why(guest, "/w/f") == "where /ro lies on the host cannot be told"
    assert not guest.may_change("/w/d")
    assert guest.may_change("/other/f")


def test_a_mount_that_is_moved_into_the_read_only_source(open_path: Path) -> None:
    _in_private(_move_mount, open_path)


def _move_mount(place: Path) -> None:
    """Renaming a directory with a mount in it changes the mount's place, and is no event."""
    plant(place)
    (place / "carrier").mkdir()
    bind(place / "w/sub", place / "carrier/m")
    guest = Guest(f"{place}/ro::/ro::ro", f"{place}/w::/w")
    assert guest.may_change("/w/sub/d/f") and guest.may_change("/w/sub")
    rename(place / "carrier", place / "ro/carrier")
    assert not guest.may_change("/w/sub/d/f")
    assert not guest.may_change("/w/sub")


def test_a_file_system_that_is_moved_into_the_read_only_source(open_path: Path) -> None:
    _in_private(_move_file_system, open_path)


def _move_file_system(place: Path) -> None:
    """The same with a file system of which nothing was shown read-only so far."""
    plant(place)
    (place / "carrier").mkdir()
    mount_tmpfs(place / "carrier/t")
    plant(place / "carrier/t")
    bind(place / "carrier/t", place / "w/t")
    guest = Guest(f"{place}/ro::/ro::ro", f"{place}/w::/w")
    assert guest.may_change("/w/t/w/d/f") and guest.may_change("/w/t/w/d")
    rename(place / "carrier", place / "ro/carrier")
    assert not guest.may_change("/w/t/w/d/f")
    assert not guest.may_change("/w/t/w/d")


@pytest.mark.usefixtures("data_way")
def test_overlayfs_over_two_file_systems(open_path: Path) -> None:
    _in_private(_change_on_overlayfs, open_path)


def _change_on_overlayfs(place: Path) -> None:
    for name in ("one", "two"):
        mount_tmpfs(place / name)
    for name in ("two/upper", "two/work"):
        (place / name).mkdir()
    plant(place / "one/lower")
    upper, work = place / "two/upper", place / "two/work"
    mount_overlay(place / "merged", place / "one/lower", upper, work, ",xino=off,index=off")
    link("ro/f", "w/alias")(place / "merged")
    preopens = [f"{place}/merged/ro::/ro::ro", f"{place}/merged/w::/w"]
    with mounted(place, *preopens) as target:
        assert outcome(lambda: os.truncate(target / "w/alias", 0)) == "EROFS"
        assert outcome(lambda: os.truncate(target / "w/f", 0)) == "ok"
    assert (place / "merged/ro/f").read_text() == "f of ro"


def test_the_table_of_mounts_is_read_whole(open_path: Path) -> None:
    """It is longer than one read of the kernel gives."""

    def scene() -> None:
        for number in range(80):
            bind(open_path, open_path.parent / open_path.name / f"{number:0>200}")
        text = mounts.MountWatch().text()
        assert text == Path("/proc/self/mountinfo").read_bytes()
        assert len(mounts.parse_mounts(text)) > 80

    in_private_mounts(scene)

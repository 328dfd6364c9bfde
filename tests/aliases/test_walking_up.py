"""Judging by what lies above, where many sources are read-only: as right as by all their places."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from aliases.kinds import link, plant
from aliases.operations import exchange, rename
from aliases.private_mounts import bind, in_private_mounts, mount_tmpfs
from overlayd.core import aliasing
from overlayd.core.types import Changes
from overlayd.host import ancestry, fs, mounts
from overlayd.host.links import LinkIndex
from overlayd.host.mounts import MountSnapshot, parse_mounts
from support.core_guest import Guest
from support.garbage import none_collected

CROWD = 40
"""Read-only sources, so many that a walk up costs less than looking where each of them lies."""


def crowd(place: Path, count: int = CROWD) -> list[str]:
    """COUNT more preopens, all read-only."""
    for number in range(count):
        (place / f"crowd/{number}").mkdir(parents=True, exist_ok=True)
    return [f"{place}/crowd/{number}::/crowd{number}::ro" for number in range(count)]


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time it was looked where all sources lie."""
    looked: list[int] = []
    refresh = aliasing.Aliasing.refresh

    def noting(self: aliasing.Aliasing) -> None:
        looked.append(1)
        refresh(self)

    monkeypatch.setattr(aliasing.Aliasing, "refresh", noting)
    return looked


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """A walk through what is shown read-only fails the test."""
    monkeypatch.setattr(LinkIndex, "holds", lambda *_: pytest.fail("the index was asked"))


# -- what is read-only stays so, and what is not needs no look ------------------------------------


def test_what_is_shown_nowhere_needs_no_look_at_the_sources(
    tmp_path: Path, looks: list[int]
) -> None:
    plant(tmp_path)
    guest = Guest(f"{tmp_path}/ro::/ro::ro", f"{tmp_path}/w::/w", *crowd(tmp_path))
    for path in ("/w", "/w/f", "/w/d", "/w/d/f", "/w/sub/d/f"):
        assert guest.may_change(path)
    assert not looks
    assert not guest.may_change("/ro/f")


def test_a_source_that_comes_to_lie_above(tmp_path: Path, looks: list[int]) -> None:
    """The same directory at the same path, and now below the read-only source."""
    plant(tmp_path)
    guest = Guest(f"{tmp_path}/ro::/ro::ro", f"{tmp_path}/w::/w", *crowd(tmp_path))
    assert guest.may_change("/w/sub/d") and guest.may_change("/w/sub/d/f")
    assert not looks
    exchange(tmp_path / "ro", tmp_path / "w/sub")
    exchange(tmp_path / "ro/d", tmp_path / "w/sub/d")
    assert not guest.may_change("/w/sub/d")
    assert not guest.may_change("/w/sub/d/f")


def test_a_source_inside_a_writable_one_that_moves_with_what_is_above_it(tmp_path: Path) -> None:
    plant(tmp_path)
    (tmp_path / "w/above").mkdir()
    rename(tmp_path / "ro", tmp_path / "w/above/ro")
    guest = Guest(f"{tmp_path}/w/above/ro::/ro::ro", f"{tmp_path}/w::/w", *crowd(tmp_path))
    assert not guest.may_change("/w/above/ro/d/f")
    rename(tmp_path / "w/above", tmp_path / "w/moved")
    for path in ("/w/moved/ro", "/w/moved/ro/f", "/w/moved/ro/d", "/w/moved/ro/d/f"):
        assert not guest.may_change(path)
    assert guest.may_change("/w/moved")


def test_what_moves_during_the_walk_is_looked_at_properly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looks: list[int]
) -> None:
    """Directly below the source when its turn comes, so that the walk misses the source."""
    plant(tmp_path)
    (tmp_path / "ro/d/e/deep").mkdir()
    rename(tmp_path / "ro", tmp_path / "w/ro")
    guest = Guest(f"{tmp_path}/w/ro::/ro::ro", f"{tmp_path}/w::/w", *crowd(tmp_path))
    number = guest.number("/w/ro/d/e/deep")
    node = guest.overlay.namespace.nodes.get(number)
    fd = guest.overlay.namespace.open_path(node)
    walk = ancestry.identities_above

    def moving(directory: fs.Fd, steps: int) -> Iterator[tuple[int, int]]:
        for height, identity in enumerate(walk(directory, steps)):
            yield identity
            if height == 1:
                rename(tmp_path / "w/ro/d/e/deep", tmp_path / "w/ro/deep")

    monkeypatch.setattr(aliasing, "identities_above", moving)
    assert guest.overlay.access._aliasing.directory(node, fd) == "it is shown read-only at /ro/deep"
    assert looks


@pytest.mark.parametrize("path", ["/out", "/out/f", "/out/d", "/out/sub/d/f"])
def test_masked_parts_stay_writable_without_a_look(
    path: str, tmp_path: Path, looks: list[int]
) -> None:
    plant(tmp_path)
    guest = Guest(f"{tmp_path}/p::/::ro", f"{tmp_path}/p/out::/out", *crowd(tmp_path))
    assert guest.may_change(path)
    assert not looks
    assert not guest.may_change("/d/f")
    rename(tmp_path / "p/out/sub", tmp_path / "p/moved")  # out of the masked part
    if path == "/out/sub/d/f":
        guest = Guest(f"{tmp_path}/p::/::ro", f"{tmp_path}/p::/out", *crowd(tmp_path))
        assert not guest.may_change("/out/moved/d/f")


def test_a_read_only_view_beside_the_one_that_masks(tmp_path: Path) -> None:
    plant(tmp_path)
    guest = Guest(
        f"{tmp_path}/p::/::ro", f"{tmp_path}/p/out::/out", f"{tmp_path}/p::/x::ro", *crowd(tmp_path)
    )
    assert not guest.may_change("/out/d/f")


def test_single_files(tmp_path: Path, looks: list[int]) -> None:
    plant(tmp_path)
    guest = Guest(
        f"{tmp_path}/w/f::/read-only::ro",
        f"{tmp_path}/w::/w",
        f"{tmp_path}/p/f::/single",
        *crowd(tmp_path),
    )
    assert guest.may_change("/single") and guest.may_change("/w/d/f")
    assert not looks
    assert not guest.may_change("/w/f")


# -- mounts ---------------------------------------------------------------------------------------


def test_mounts_between_what_is_judged_and_the_source(open_path: Path) -> None:
    in_private_mounts(lambda: _mount_below(open_path))


def _mount_below(place: Path) -> None:
    plant(place)
    mount_tmpfs(place / "ro/mounted")
    plant(place / "ro/mounted")
    mount_tmpfs(place / "other")
    plant(place / "other")
    dirs = (f"{place}/ro::/ro::ro", f"{place}/ro/mounted/w::/in", f"{place}/other/w::/out")
    guest = Guest(*dirs, *crowd(place))
    assert not guest.may_change("/in/d/f") and not guest.may_change("/in/d")
    assert guest.may_change("/out/d/f") and guest.may_change("/out/d")


def test_what_is_mounted_twice(open_path: Path) -> None:
    in_private_mounts(lambda: _mount_twice(open_path))


def _mount_twice(place: Path) -> None:
    plant(place)
    bind(place / "w/sub", place / "ro/bound")
    (place / "carrier").mkdir()
    bind(place / "p/out", place / "carrier/bound")
    dirs = (f"{place}/ro::/ro::ro", f"{place}/w::/w", f"{place}/p::/p")
    guest = Guest(*dirs, f"{place}/carrier/bound::/c", *crowd(place))
    assert not guest.may_change("/w/sub/d/f") and not guest.may_change("/w/sub")
    assert guest.may_change("/w/d/f") and guest.may_change("/p/d")
    assert guest.may_change("/p/out/d/f") and guest.may_change("/c/d/f")
    rename(place / "carrier", place / "ro/carrier")
    assert not guest.may_change("/p/out/d/f") and not guest.may_change("/p/out")
    assert not guest.may_change("/c/d/f") and not guest.may_change("/c/d")
    assert guest.may_change("/w/d/f") and guest.may_change("/p/d")


def test_a_source_above_what_a_mount_shows(open_path: Path) -> None:
    in_private_mounts(lambda: _mount_part(open_path))


def _mount_part(place: Path) -> None:
    mount_tmpfs(place / "whole")
    plant(place / "whole")
    bind(place / "whole/w/sub", place / "part")
    guest = Guest(f"{place}/whole/w::/w::ro", f"{place}/part::/part", *crowd(place))
    assert not guest.may_change("/part/d/f") and not guest.may_change("/part/d")


def test_parts_of_a_file_system_that_is_nowhere_mounted_whole(
    open_path: Path, looks: list[int]
) -> None:
    in_private_mounts(lambda: _mount_parts(open_path, looks))


def _mount_parts(place: Path, looks: list[int]) -> None:
    """As containers have them; no event tells when the one is moved below the other."""
    mount_tmpfs(place / "whole")
    plant(place / "whole")
    bind(place / "whole/ro", place / "ro")
    bind(place / "whole/w", place / "w")
    whole = os.open(place / "whole", os.O_PATH)
    mounts.detach(str(place / "whole"))
    guest = Guest(f"{place}/ro::/ro::ro", f"{place}/w::/w", *crowd(place))
    assert guest.may_change("/w/d/f") and guest.may_change("/w/d")
    assert not looks
    os.rename("w", "ro/w", src_dir_fd=whole, dst_dir_fd=whole)
    assert not guest.may_change("/w/d/f") and not guest.may_change("/w/d")


def test_a_mount_that_comes_later(open_path: Path) -> None:
    in_private_mounts(lambda: _mount_late(open_path))


def _mount_late(place: Path) -> None:
    plant(place)
    guest = Guest(f"{place}/ro::/ro::ro", f"{place}/w::/w", *crowd(place))
    assert guest.may_change("/w/d/f") and guest.may_change("/w/d")
    bind(place / "w/d", place / "ro/late")
    assert not guest.may_change("/w/d/f") and not guest.may_change("/w/d")


LINE = "{0} 1 {1} {2} {3} rw - {4} none rw\n"


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([(1, "8:1", "/", "/", "ext4")], "lasting"),
        ([(2, "8:1", "/", "/", "overlay"), (1, "8:2", "/", "/a", "ext4")], "nothing"),
        ([(2, "8:1", "/", "/", "ext4"), (1, "8:2", "/", "/a", "nfs")], "nothing"),
        ([(2, "8:1", "/", "/a", "fuse"), (1, "8:2", "/", "/ab", "ext4")], "lasting"),
        ([(2, "8:1", "/", "/", "ext4"), (1, "8:1", "/b", "/a", "ext4")], "nothing"),
    ],
)
def test_from_where_one_can_walk_up(table: list[tuple[object, ...]], expected: str) -> None:
    text = "".join(LINE.format(*line) for line in table).encode()
    slope = ancestry.Slopes(MountSnapshot(parse_mounts(text))).of(1)
    told = "nothing" if slope is None else "lasting" if slope.is_lasting else "moving"
    assert told == expected


# -- hard links -----------------------------------------------------------------------------------


def age() -> None:
    """Let the last change of any file be a while ago."""
    time.sleep(0.06)


def test_a_file_all_of_whose_names_are_known_pays_no_walk(tmp_path: Path, no_index: None) -> None:
    plant(tmp_path)
    link("w/f", "w/d/again")(tmp_path)
    age()
    guest = Guest(f"{tmp_path}/ro::/ro::ro", f"{tmp_path}/w::/w")
    guest.number("/w/d/again")
    assert guest.may_change("/w/f")


def asks_index(guest: Guest, path: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether judging PATH takes a walk through what is shown read-only; what that says is kept."""
    asked: list[bool] = []
    holds = LinkIndex.holds

    def noting(*arguments: Any) -> bool:
        asked.append(True)
        return holds(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(LinkIndex, "holds", noting)
        guest.may_change(path)
    return bool(asked)


def test_a_name_that_is_not_known_or_twice_the_same_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(tmp_path)
    link("w/f", "w/d/again")(tmp_path)
    age()
    dirs = (f"{tmp_path}/ro::/ro::ro", f"{tmp_path}/w::/w", f"{tmp_path}/w::/twice")
    guest = Guest(*dirs)
    assert asks_index(guest, "/w/f", monkeypatch)
    age()
    guest.number("/twice/f")
    assert asks_index(guest, "/w/f", monkeypatch), "one name, by two ways"
    age()
    guest.number("/twice/d/again")
    assert not asks_index(guest, "/w/f", monkeypatch)


def test_a_file_that_has_just_changed_is_walked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another change might leave its time of change as it is."""
    plant(tmp_path)
    guest = Guest(f"{tmp_path}/ro::/ro::ro", f"{tmp_path}/w::/w")
    guest.number("/w/d/f")
    link("w/f", "w/d/again")(tmp_path)
    guest.number("/w/d/again")
    assert asks_index(guest, "/w/f", monkeypatch)


def test_names_that_moved_or_are_read_only(tmp_path: Path) -> None:
    plant(tmp_path)
    link("w/f", "w/d/again")(tmp_path)
    guest = Guest(f"{tmp_path}/ro::/ro::ro", f"{tmp_path}/w::/w")
    guest.number("/w/d/again")
    rename(tmp_path / "w/d/again", tmp_path / "ro/again")
    age()
    assert not guest.may_change("/w/f")
    rename(tmp_path / "ro/again", tmp_path / "w/d/again")
    rename(tmp_path / "w/d", tmp_path / "ro/in")
    age()
    assert not guest.may_change("/w/f")


def test_a_link_that_moves_while_its_names_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each name is there when its turn comes, and all the time there is one in the source."""
    plant(tmp_path)
    link("w/f", "w/d/again")(tmp_path)
    guest = Guest(f"{tmp_path}/ro::/ro::ro", f"{tmp_path}/w::/w")
    guest.number("/w/f")
    guest.number("/w/d/again")
    rename(tmp_path / "w/f", tmp_path / "ro/third")
    age()
    holds = aliasing._holds

    def moving(directory: fs.Fd, name: bytes, status: fs.HostStat) -> bool:
        held = holds(directory, name, status)
        if held and not (tmp_path / "w/f").exists():
            rename(tmp_path / "w/d/again", tmp_path / "w/f")
        return held

    monkeypatch.setattr(aliasing, "_holds", moving)
    number = guest.number("/w/d/again")
    node = guest.overlay.namespace.nodes.get(number)
    fd = guest.overlay.namespace.open_path(node)
    with guest.overlay.namespace.patience():
        reason = guest.overlay.access._aliasing.file(node, fd, fs.stat_fd(fd))
    assert reason == "another hard link of the same file is shown read-only"


# -- what it costs --------------------------------------------------------------------------------


def host_calls(act: Callable[[], object]) -> int:
    """How many calls ACT makes of the host, by Python's own and by our bindings."""
    counted: Counter[str] = Counter()

    def note(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call" and getattr(argument, "__module__", "") == "posix":
            counted[argument.__name__] += 1
        elif event == "call" and frame.f_code.co_filename.endswith("host/libc.py"):
            counted[frame.f_code.co_name] += 1

    with none_collected():
        sys.setprofile(note)
        try:
            act()
        finally:
            sys.setprofile(None)
    return counted.total()


def cost_of_changes(place: Path, count: int) -> dict[str, int]:
    """Calls per operation in a writable preopen, with COUNT read-only ones beside it."""
    (place / "w/d").mkdir(parents=True)
    for name in ("w/f", "w/linked"):
        (place / name).touch()
    os.link(place / "w/linked", place / "w/d/linked")
    guest = Guest(f"{place}/w::/w", *crowd(place, count))
    for path in ("/w/d", "/w/f", "/w/linked", "/w/d/linked"):
        guest.number(path)
    age()
    guest.mkdir("/w/first")
    return {
        "create": host_calls(lambda: guest.create("/w/d/new")),
        "open": host_calls(lambda: guest.open("/w/f", os.O_RDWR)),
        "chmod": host_calls(lambda: guest.change("/w/f", Changes(mode=0o600))),
        "linked": host_calls(lambda: guest.open("/w/linked", os.O_RDWR)),
        "rename": host_calls(lambda: guest.rename("/w/d/new", "/w/d/newer")),
        "unlink": host_calls(lambda: guest.unlink("/w/d/newer")),
        "mkdir": host_calls(lambda: guest.mkdir("/w/d/dir")),
        "rmdir": host_calls(lambda: guest.rmdir("/w/d/dir")),
    }


def costs(place: Path, count: int) -> dict[str, int]:
    def measured() -> dict[str, int]:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        place.mkdir()
        return cost_of_changes(place, count)

    # Of their own: whatever is mounted on this machine meanwhile makes the next call look again.
    return in_private_mounts(measured, bare=True)


def test_a_judgement_costs_the_same_with_a_thousand_read_only_sources(tmp_path: Path) -> None:
    few, many = (costs(tmp_path / str(count), count) for count in (10, 1000))
    assert many == few
    assert min(few.values()) > 5, "something was counted"


def test_the_same_where_something_is_mounted_twice(open_path: Path) -> None:
    def measured() -> tuple[dict[str, int], dict[str, int]]:
        (open_path / "bound").mkdir()
        bind(open_path / "bound", open_path / "again")
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        found = []
        for count in (10, 200):
            (open_path / str(count)).mkdir()
            found.append(cost_of_changes(open_path / str(count), count))
        return found[0], found[1]

    few, many = in_private_mounts(measured, bare=True)
    assert many == few

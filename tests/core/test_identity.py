"""Which objects are one and which are two (SPEC.md section 3, rule 7)."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from overlayd.core.types import Changes
from overlayd.host.fs import RENAME_EXCHANGE
from support.core_guest import Guest, fails
from support.planting import plant


def test_hard_links_are_one_node(tmp_path: Path) -> None:
    plant(tmp_path, "a/f=1", "a/d/")
    os.link(tmp_path / "a/f", tmp_path / "a/d/g")
    guest = Guest(f"{tmp_path}/a::/")
    assert guest.number("/f") == guest.number("/d/g")
    guest.link("/f", "/h")
    assert guest.number("/h") == guest.number("/f")
    assert guest.stat("/h").stat.nlink == 3


def test_one_file_through_two_preopens_is_one_node(tmp_path: Path) -> None:
    plant(tmp_path, "a/f=1")
    guest = Guest(f"{tmp_path}/a::/x", f"{tmp_path}/a::/y", f"{tmp_path}/a/f::/z")
    assert guest.number("/x/f") == guest.number("/y/f") == guest.number("/z")
    guest.write("/x/f", "changed")
    assert guest.read("/y/f") == guest.read("/z") == "changed"


def test_one_directory_through_two_preopens_is_two_nodes(tmp_path: Path) -> None:
    plant(tmp_path, "a/d/f=1")
    guest = Guest(f"{tmp_path}/a::/x", f"{tmp_path}/a::/y", f"{tmp_path}/a/d::/z")
    numbers = {guest.number(path) for path in ("/x/d", "/y/d", "/z")}
    assert len(numbers) == 3
    assert len({guest.number(path) for path in ("/x/d/f", "/y/d/f", "/z/f")}) == 1


def test_every_object_has_a_number_of_its_own(tmp_path: Path) -> None:
    plant(tmp_path, "a/d/e/f=1", "a/d/g=1", "a/l->d", "b/f=1", "b/d/")
    guest = Guest(f"{tmp_path}/a::/", f"{tmp_path}/b::/m", f"{tmp_path}/b::/s/t")
    paths = [
        "/",
        "/d",
        "/d/e",
        "/d/e/f",
        "/d/g",
        "/l",
        "/m",
        "/m/f",
        "/m/d",
        "/s",
        "/s/t",
        "/s/t/d",
    ]
    numbers = [guest.number(path) for path in paths]
    assert len(set(numbers)) == len(paths)
    assert all(0 < number < 2**53 for number in numbers)


def test_numbers_are_the_same_after_a_remount(tmp_path: Path) -> None:
    plant(tmp_path, "a/d/f=1", "a/l->d", "b/d/")
    paths = ["/", "/d", "/d/f", "/l", "/m", "/m/d", "/s", "/s/t"]
    flags = [f"{tmp_path}/a::/", f"{tmp_path}/b::/m", f"{tmp_path}/b::/s/t"]
    first, second = Guest(*flags), Guest(*reversed(flags))
    numbers = {path: first.number(path) for path in paths}
    assert {path: second.number(path) for path in reversed(paths)} == numbers


def test_a_name_reused_for_a_new_object_gets_a_new_number(tmp_path: Path) -> None:
    plant(tmp_path, "a/f=old")
    guest = Guest(f"{tmp_path}/a::/")
    old = guest.number("/f")
    (tmp_path / "a/f").unlink()
    plant(tmp_path, "a/f=new")
    assert guest.number("/f") != old
    assert guest.read("/f") == "new"
    with fails(errno.ESTALE):
        guest.attributes.getattr(old)


def test_a_name_that_changes_its_type_gets_a_new_number(tmp_path: Path) -> None:
    plant(tmp_path, "a/x=file")
    guest = Guest(f"{tmp_path}/a::/")
    old = guest.number("/x")
    (tmp_path / "a/x").unlink()
    plant(tmp_path, "a/x/y=1")
    assert guest.number("/x") != old
    assert guest.read("/x/y") == "1"
    with fails(errno.ENOTDIR):
        guest.names.lookup(old, b"y")


# -- names: moved, exchanged, removed -----------------------------------------------------------


def test_a_renamed_file_keeps_its_number_and_its_open_handles(tmp_path: Path) -> None:
    plant(tmp_path, "a/f=1", "a/d/")
    guest = Guest(f"{tmp_path}/a::/")
    number = guest.number("/f")
    handle = guest.open("/f")
    guest.rename("/f", "/d/g")
    assert guest.number("/d/g") == number
    assert guest.attributes.getattr(number).stat.nlink == 1
    assert guest.data.read(handle, 0, 9) == b"1"
    with fails(errno.ENOENT):
        guest.number("/f")


def test_a_renamed_directory_keeps_its_number_and_everything_in_it(tmp_path: Path) -> None:
    plant(tmp_path, "a/d/e/f=1", "a/x/")
    guest = Guest(f"{tmp_path}/a::/")
    numbers = [guest.number(path) for path in ("/d", "/d/e", "/d/e/f")]
    guest.rename("/d", "/x/y")
    assert [guest.number(path) for path in ("/x/y", "/x/y/e", "/x/y/e/f")] == numbers
    assert guest.attributes.getattr(numbers[1]).number == numbers[1]
    guest.names.mkdir(numbers[1], b"made", 0o755, guest.caller)
    assert (tmp_path / "a/x/y/e/made").is_dir()


def test_rename_over_an_existing_name(tmp_path: Path) -> None:
    plant(tmp_path, "a/f=F", "a/g=G", "a/d/", "a/e/")
    guest = Guest(f"{tmp_path}/a::/")
    file, directory, replaced = guest.number("/f"), guest.number("/d"), guest.number("/g")
    handle = guest.open("/g")
    guest.rename("/f", "/g")
    guest.rename("/d", "/e")
    assert (guest.number("/g"), guest.number("/e")) == (file, directory)
    assert guest.data.read(handle, 0, 9) == b"G"
    assert guest.attributes.getattr(replaced).stat.nlink == 0
    assert guest.ls("/") == ["e", "g"]


@pytest.mark.parametrize("first", ["f", "d", "l"])
@pytest.mark.parametrize("second", ["x/f", "x/d", "x/l"])
def test_exchange(tmp_path: Path, first: str, second: str) -> None:
    plant(tmp_path, "a/f=F", "a/d/in=1", "a/l->f", "a/x/f=XF", "a/x/d/in=2", "a/x/l->d")
    guest = Guest(f"{tmp_path}/a::/")
    numbers = guest.number(f"/{first}"), guest.number(f"/{second}")
    guest.rename(f"/{first}", f"/{second}", RENAME_EXCHANGE)
    assert (guest.number(f"/{second}"), guest.number(f"/{first}")) == numbers
    for number in numbers:
        assert guest.attributes.getattr(number).number == number


def test_rename_between_two_names_of_one_file_changes_nothing(tmp_path: Path) -> None:
    plant(tmp_path, "a/f=1")
    os.link(tmp_path / "a/f", tmp_path / "a/g")
    guest = Guest(f"{tmp_path}/a::/")
    guest.number("/g")
    guest.rename("/f", "/g")
    guest.rename("/f", "/f")
    assert guest.ls("/") == ["f", "g"]
    assert guest.number("/f") == guest.number("/g")
    guest.unlink("/f")
    assert guest.read("/g") == "1"


def test_a_file_is_reached_by_any_name_it_has_left(tmp_path: Path) -> None:
    plant(tmp_path, "a/f=1", "a/d/")
    guest = Guest(f"{tmp_path}/a::/")
    number = guest.number("/f")
    guest.link("/f", "/d/g")
    guest.link("/f", "/h")
    for name in ("/h", "/f"):
        guest.unlink(name)
        assert guest.attributes.getattr(number).number == number
    assert guest.read("/d/g") == "1"
    assert guest.attributes.getattr(number).stat.nlink == 1


def test_a_link_made_from_an_open_unlinked_file_is_refused_as_by_the_host(tmp_path: Path) -> None:
    plant(tmp_path, "a/f=1")
    guest = Guest(f"{tmp_path}/a::/")
    number = guest.number("/f")
    handle = guest.open("/f")
    guest.unlink("/f")
    with fails(errno.ENOENT):
        guest.names.link(number, guest.number("/"), b"back", guest.caller)
    guest.data.release(handle)


def test_a_symbolic_link_with_names_in_two_directories_is_two_nodes(tmp_path: Path) -> None:
    """What it says depends on where it lies, and one node could say but one thing."""
    plant(tmp_path, "a/l->/d", "a/d/")
    os.link(tmp_path / "a/l", tmp_path / "a/d/m", follow_symlinks=False)
    os.link(tmp_path / "a/l", tmp_path / "a/n", follow_symlinks=False)
    guest = Guest(f"{tmp_path}/a::/")
    assert guest.number("/l") == guest.number("/n") != guest.number("/d/m")
    assert [guest.readlink(path) for path in ("/l", "/d/m", "/l")] == [b"d", b".", b"d"]


def test_changing_one_name_of_a_hard_link_shows_through_the_other(tmp_path: Path) -> None:
    plant(tmp_path, "a/f=1", "a/d/")
    guest = Guest(f"{tmp_path}/a::/")
    guest.link("/f", "/d/g")
    guest.change("/f", Changes(mode=0o600, size=0))
    status = guest.stat("/d/g").stat
    assert (stat.S_IMODE(status.mode), status.size) == (0o600, 0)

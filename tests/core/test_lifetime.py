"""Objects that go, move or are many: open handles, the host's own changes, few descriptors."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from overlayd.core.types import Changes
from overlayd.host import fs
from support.core_guest import Guest, each_fails, fails
from support.planting import plant


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    plant(tmp_path, "a/f=text", "a/d/e/g=deep", "a/x/")
    return Guest(f"{tmp_path}/a::/")


# -- removed while open -------------------------------------------------------------------------


def test_an_unlinked_open_file_stays_readable_and_writable(guest: Guest) -> None:
    number = guest.number("/f")
    handle = guest.open("/f", os.O_RDWR)
    guest.unlink("/f")
    assert guest.data.read(handle, 0, 9) == b"text"
    assert guest.data.write(handle, 4, b"more") == 4
    assert guest.data.read(handle, 0, 99) == b"textmore"
    changed = guest.attributes.setattr(number, Changes(size=2, mode=0o600), handle, guest.caller)
    assert (changed.size, changed.stat.nlink) == (2, 0)
    guest.attributes.setxattr(number, b"user.x", b"1", guest.caller)
    assert guest.attributes.getattr(number).size == 2
    guest.data.fsync(handle, False)
    guest.data.release(handle)


def test_a_replaced_open_file_stays_what_it_was(guest: Guest) -> None:
    handle = guest.open("/f", os.O_RDWR)
    guest.make("/new", "new")
    guest.rename("/new", "/f")
    guest.data.write(handle, 0, b"OLD")
    assert guest.data.read(handle, 0, 9) == b"OLDt"
    assert guest.read("/f") == "new"
    guest.data.release(handle)


def test_a_file_the_host_unlinks_stays_open(guest: Guest, tmp_path: Path) -> None:
    number, handle = guest.number("/f"), guest.open("/f")
    (tmp_path / "a/f").unlink()
    assert guest.data.read(handle, 0, 9) == b"text"
    assert guest.attributes.getattr(number).stat.nlink == 0
    second = guest.data.open(number, os.O_RDWR, guest.caller)
    assert guest.data.read(second, 0, 9) == b"text"
    guest.data.release(handle)
    guest.data.release(second)
    with fails(errno.ESTALE):
        guest.attributes.getattr(number)


def test_a_removed_file_that_is_only_referred_to_can_still_be_looked_at(guest: Guest) -> None:
    """An O_PATH descriptor sends no open; the kernel then asks by node."""
    number = guest.number("/f")
    guest.unlink("/f")
    assert guest.attributes.getattr(number).stat.nlink == 0


def test_the_same_of_a_file_that_was_renamed_before(guest: Guest) -> None:
    """Its former name must not pass for one that is left."""
    number = guest.number("/f")
    guest.rename("/f", "/x/g")
    guest.unlink("/x/g")
    assert guest.attributes.getattr(number).stat.size == 4


def test_a_removed_directory_still_answers(guest: Guest) -> None:
    """A process may have it as its working directory."""
    number = guest.number("/x")
    handle = guest.names.opendir(number, guest.caller)
    guest.rmdir("/x")
    assert guest.attributes.getattr(number).stat.nlink == 0
    assert [name for name, _ in guest.entries(handle)] == [b".", b".."]
    with fails(errno.ENOENT):
        guest.names.lookup(number, b"y")
    with fails(errno.ENOENT):
        guest.names.mkdir(number, b"y", 0o755, guest.caller)
    guest.data.release(handle)


# -- what the host moves ------------------------------------------------------------------------


def test_the_host_renames_a_directory_with_an_open_handle(guest: Guest, tmp_path: Path) -> None:
    number = guest.number("/d")
    handle = guest.names.opendir(number, guest.caller)
    (tmp_path / "a/d").rename(tmp_path / "a/moved")
    guest.overlay.namespace.cache.shrink()
    assert {name for name, _ in guest.entries(handle)} == {b".", b"..", b"e"}
    assert guest.names.lookup(number, b"e").stat.is_dir
    assert guest.attributes.getattr(number).number == number
    guest.data.release(handle)
    assert guest.read("/moved/e/g") == "deep"


def test_a_moved_directory_is_found_again_under_its_new_name(guest: Guest, tmp_path: Path) -> None:
    number = guest.number("/d/e")
    (tmp_path / "a/d").rename(tmp_path / "a/x/y")
    assert guest.number("/x/y/e") == number


def test_a_name_the_host_replaced_never_serves_the_old_node(guest: Guest, tmp_path: Path) -> None:
    old = guest.number("/d")
    while guest.overlay.namespace.cache.shrink():
        pass
    shutil.rmtree(tmp_path / "a/d")
    plant(tmp_path, "a/d/other=1")
    each_fails(
        errno.ESTALE,
        lambda: guest.attributes.getattr(old),
        lambda: guest.names.lookup(old, b"other"),
        lambda: guest.names.mkdir(old, b"new", 0o755, guest.caller),
    )
    assert guest.read("/d/other") == "1"


@pytest.mark.parametrize("kind", ["mkdir", "mknod", "symlink", "link"])
def test_the_host_replaces_what_has_just_been_made(
    guest: Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """By something of another kind: the kernel must ask again, or it would say EIO."""
    make = {"mkdir": "make_dir", "mknod": "make_node", "symlink": "make_symlink"}
    name = make.get(kind, "make_link")
    original = getattr(fs, name)

    def make_and_replace(*args: Any) -> None:
        original(*args)
        (tmp_path / "a/new").rename(tmp_path / "a/elsewhere")
        os.mkfifo(tmp_path / "a/new")

    guest.make("/made", "made")
    monkeypatch.setattr(fs, name, make_and_replace)
    known = len(guest.overlay.namespace.nodes)
    calls: dict[str, Callable[[], object]] = {
        "mkdir": lambda: guest.mkdir("/new"),
        "mknod": lambda: guest.mknod("/new", stat.S_IFREG | 0o644),
        "symlink": lambda: guest.symlink("x", "/new"),
        "link": lambda: guest.link("/made", "/new"),
    }
    with fails(errno.ESTALE):
        calls[kind]()
    assert len(guest.overlay.namespace.nodes) <= known + (kind == "link")
    assert stat.S_ISFIFO(guest.stat("/new").stat.mode)


def test_a_link_put_in_a_directorys_place_is_not_followed(guest: Guest, tmp_path: Path) -> None:
    plant(tmp_path, "secret/e/g=S")
    number = guest.number("/d/e")
    while guest.overlay.namespace.cache.shrink():
        pass
    shutil.rmtree(tmp_path / "a/d")
    plant(tmp_path, "a/d->../secret")
    with fails(errno.ESTALE):
        guest.names.lookup(number, b"g")
    with fails(errno.ENOTDIR):
        guest.number("/d/e")


def test_directories_turned_inside_out_by_the_host(guest: Guest, tmp_path: Path) -> None:
    """/d/e becomes /e, and /d becomes /e/d: seen from the old nodes, that would be a circle."""
    plant(tmp_path, "a/d/e/l->/f")
    outer, inner = guest.number("/d"), guest.number("/d/e")
    handle = guest.names.opendir(inner, guest.caller)
    (tmp_path / "a/d/e").rename(tmp_path / "a/e")
    (tmp_path / "a/d").rename(tmp_path / "a/e/d")
    with fails(errno.ELOOP):  # as the kernel's own tree answers
        guest.names.lookup(inner, b"d")
    assert b"d" not in [name for name, _ in guest.entries(handle)]
    guest.data.release(handle)
    while guest.overlay.namespace.cache.shrink():
        pass
    assert (guest.number("/e"), guest.number("/e/d")) == (inner, outer)
    assert guest.readlink("/e/l") == b"../f"


def test_directories_turned_inside_out_by_the_guest(tmp_path: Path) -> None:
    """The same through a second preopen of the same directory: the host takes no part."""
    plant(tmp_path, "a/d/e/")
    guest = Guest(f"{tmp_path}/a::/x", f"{tmp_path}/a::/y")
    inner = guest.number("/x/d/e")
    handle = guest.names.opendir(inner, guest.caller)
    guest.rename("/y/d/e", "/y/e")
    guest.rename("/y/d", "/y/e/d")
    with fails(errno.ELOOP):
        guest.names.lookup(inner, b"d")
    guest.data.release(handle)
    while guest.overlay.namespace.cache.shrink():
        pass
    assert guest.ls("/x/e/d") == []
    assert guest.overlay.namespace.guest_path(guest.overlay.namespace.nodes.get(inner))


# -- more directories than descriptors -------------------------------------------------------------


def test_a_tree_far_deeper_than_the_cache(tmp_path: Path) -> None:
    depth = 150
    path = "/".join(["d"] * depth)
    plant(tmp_path, f"a/{path}/f=bottom")
    guest = Guest(f"{tmp_path}/a::/", descriptors=32)
    number = guest.number(f"/{path}/f")
    assert guest.read(f"/{path}/f") == "bottom"
    assert len(guest.overlay.namespace.cache) <= 32
    while guest.overlay.namespace.cache.shrink():
        pass
    handle = guest.data.open(number, os.O_RDONLY, guest.caller)
    assert guest.data.read(handle, 0, 9) == b"bottom"
    guest.data.release(handle)


def test_a_tree_far_wider_than_the_cache(tmp_path: Path) -> None:
    plant(tmp_path, *(f"a/d{index}/f={index}" for index in range(300)))
    guest = Guest(f"{tmp_path}/a::/", descriptors=32)
    numbers = [guest.number(f"/d{index}") for index in range(300)]
    for index, number in enumerate(numbers):
        file = guest.names.lookup(number, b"f").number
        handle = guest.data.open(file, os.O_RDONLY, guest.caller)
        assert guest.data.read(handle, 0, 9) == str(index).encode()
        guest.data.release(handle)
    assert len(guest.overlay.namespace.cache) <= 32


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 24, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_descriptors")
def test_the_cache_gives_way_when_the_process_runs_out_of_descriptors(tmp_path: Path) -> None:
    plant(tmp_path, *(f"a/d{index}/f={index}" for index in range(60)))
    guest = Guest(f"{tmp_path}/a::/", descriptors=1000)
    for index in range(60):
        assert guest.read(f"/d{index}/f") == str(index)
        assert guest.ls(f"/d{index}") == ["f"]


def test_descriptors_are_given_back(tmp_path: Path) -> None:
    plant(tmp_path, "a/d/f=1", "b/")
    before = len(os.listdir("/proc/self/fd"))
    guest = Guest(f"{tmp_path}/a::/", f"{tmp_path}/b::/m")
    guest.read("/d/f")
    guest.ls("/d")
    guest.mkdir("/m/x")
    guest.rmdir("/m/x")
    del guest
    assert len(os.listdir("/proc/self/fd")) == before


# -- forgotten ----------------------------------------------------------------------


def test_a_forgotten_node_is_gone_and_comes_back_on_lookup(guest: Guest) -> None:
    root = guest.number("/")
    number = guest.names.lookup(root, b"f").number
    guest.names.forget(number, 1)
    with fails(errno.ESTALE):
        guest.attributes.getattr(number)
    assert guest.number("/f") == number


def test_forgetting_a_directory_frees_its_descriptor(guest: Guest) -> None:
    number = guest.number("/d")
    guest.names.lookup(number, b"e")
    assert len(guest.overlay.namespace.cache) == 1
    guest.names.forget(number, 1)
    assert len(guest.overlay.namespace.cache) == 0


def test_lookups_of_what_is_not_there_leave_nothing_behind(guest: Guest) -> None:
    before = len(guest.overlay.namespace.nodes)
    for _ in range(10):
        assert not guest.exists("/none")
    assert len(guest.overlay.namespace.nodes) == before

"""Masking, listings and synthetic directories (SPEC.md section 3, rules 1 to 5)."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from support.core_guest import Guest, fails
from support.planting import plant


@pytest.fixture
def nested(tmp_path: Path) -> Guest:
    """The two overlapping preopens of wasmtime issue 13544."""
    plant(tmp_path, "a/lib/x=AX", "a/lib/hidden=AH", "a/other=AO", "b/x=BX", "b/only=BO")
    return Guest(f"{tmp_path}/a::/", f"{tmp_path}/b::/lib")


# -- masking ------------------------------------------------------------------------------------


def test_a_mount_point_masks_what_its_parents_source_has(nested: Guest) -> None:
    assert nested.read("/lib/x") == "BX"
    assert nested.read("/lib/only") == "BO"
    assert not nested.exists("/lib/hidden")
    assert nested.read("/other") == "AO"


def test_every_way_of_reaching_a_path_gives_the_same_object(nested: Guest) -> None:
    lib = nested.number("/lib")
    direct = nested.stat("/lib/x").number
    assert nested.names.lookup(lib, b"x").number == direct
    listed = dict(nested.listing("/lib"))
    assert listed[b"x"].number == direct
    assert dict(nested.listing("/"))[b"lib"].number == lib
    assert listed[b".."].number == nested.number("/")
    assert listed[b"."].number == lib


def test_a_directory_handle_opened_before_shows_the_same(nested: Guest) -> None:
    handle = nested.names.opendir(nested.number("/lib"), nested.caller)
    names = {name for name, _ in nested.entries(handle)}
    assert names == {b".", b"..", b"x", b"only"}
    again = {name for name, _ in nested.entries(handle)}
    assert again == names
    nested.data.release(handle)


def test_a_masked_object_cannot_be_reached_by_link_or_rename(nested: Guest) -> None:
    root = nested.number("/")
    with fails(errno.ENOENT):
        nested.link("/lib/hidden", "/copy")
    with fails(errno.ENOENT):
        nested.rename("/lib/hidden", "/lib/copy")
    with fails(errno.EINVAL):
        nested.names.lookup(root, b"lib/hidden")


def test_a_host_directory_renamed_under_a_mount_point_stays_masked(
    nested: Guest, tmp_path: Path
) -> None:
    plant(tmp_path, "a/new/x=NEW")
    assert nested.read("/new/x") == "NEW"
    shutil.rmtree(tmp_path / "a/lib")
    (tmp_path / "a/new").rename(tmp_path / "a/lib")
    assert nested.read("/lib/x") == "BX"
    assert not nested.exists("/new")


@pytest.mark.parametrize("masked", ["a/m/inside=1", "a/m=file", "a/m->other", "a/other=1"])
def test_whatever_lies_below_a_mount_point_is_masked(tmp_path: Path, masked: str) -> None:
    plant(tmp_path, masked, "a/other/" if masked != "a/other=1" else "a/z=1", "b/shown=B")
    guest = Guest(f"{tmp_path}/a::/", f"{tmp_path}/b::/m")
    assert guest.ls("/m") == ["shown"]
    assert guest.ls("/").count("m") == 1


def test_a_file_masks_and_is_masked(tmp_path: Path) -> None:
    plant(tmp_path, "a/etc/conf=old", "a/etc/rest=R", "new=new", "a/d/x=1")
    guest = Guest(f"{tmp_path}/a::/", f"{tmp_path}/new::/etc/conf::ro", f"{tmp_path}/new::/d")
    assert guest.read("/etc/conf") == "new"
    assert guest.read("/d") == "new"
    assert guest.ls("/etc") == ["conf", "rest"]
    types = {name: stat.S_IFMT(a.stat.mode) for name, a in guest.listing("/")}
    assert types[b"d"] == stat.S_IFREG
    assert types[b"etc"] == stat.S_IFDIR


def test_mount_points_nest_to_any_depth(tmp_path: Path) -> None:
    flags = []
    for depth in range(30):
        plant(tmp_path, f"s{depth}/d/masked=no", f"s{depth}/level={depth}")
        flags.append(f"{tmp_path}/s{depth}::/" + "/".join(["d"] * depth))
    guest = Guest(*reversed(flags))
    for depth in range(30):
        path = "/" + "/".join(["d"] * depth)
        assert guest.read(f"{path}/level") == str(depth)
        assert guest.exists(f"{path}/d/masked") is (depth == 29)


def test_unmasked_again_below_a_sibling(tmp_path: Path) -> None:
    """A nearer mount point decides: /a/b shows the outer source again, under another name."""
    plant(tmp_path, "p/a/b/f=outer", "q/b/f=inner")
    guest = Guest(f"{tmp_path}/p::/", f"{tmp_path}/q::/a", f"{tmp_path}/p/a/b::/a/b")
    assert guest.read("/a/b/f") == "outer"


# -- listings -----------------------------------------------------------------------------------


def test_a_listing_holds_each_mount_point_once_with_its_type(tmp_path: Path) -> None:
    plant(tmp_path, "a/lib/x=1", "a/file=1", "b/", "c=C")
    guest = Guest(
        f"{tmp_path}/a::/", f"{tmp_path}/b::/lib", f"{tmp_path}/b::/new", f"{tmp_path}/c::/one"
    )
    listed = guest.listing("/")
    names = [name for name, _ in listed]
    assert sorted(names) == [b".", b"..", b"file", b"lib", b"new", b"one"]
    types = {name: stat.S_IFMT(attrs.stat.mode) for name, attrs in listed}
    assert types[b"lib"] == types[b"new"] == types[b"."] == stat.S_IFDIR
    assert types[b"one"] == types[b"file"] == stat.S_IFREG
    assert names[:2] == [b".", b".."]


def test_a_listing_and_a_lookup_agree(nested: Guest) -> None:
    for path in ("/", "/lib"):
        for name, attrs in nested.listing(path):
            if name not in (b".", b".."):
                assert nested.stat(os.path.join(path.encode(), name)).number == attrs.number


def test_a_listing_can_be_taken_in_pieces(tmp_path: Path) -> None:
    plant(tmp_path, *(f"a/n{index}=" for index in range(50)), "b/")
    guest = Guest(f"{tmp_path}/a::/", f"{tmp_path}/b::/mount")
    handle = guest.names.opendir(guest.number("/"), guest.caller)
    names, start = [], 0
    while taken := guest.take(handle, start, 6):
        names += [entry.name for entry in taken]
        start = taken[-1].cookie
    guest.data.release(handle)
    assert len(names) == len(set(names)) == 53


def test_a_listing_goes_on_in_another_stream(tmp_path: Path) -> None:
    """As it does where the kernel kept the beginning, and had to forget the rest."""
    plant(tmp_path, *(f"a/n{index}=" for index in range(50)), "b/")
    guest = Guest(f"{tmp_path}/a::/", f"{tmp_path}/b::/mount")
    one, other = (guest.names.opendir(guest.number("/"), guest.caller) for _ in range(2))
    begun = [(entry.name, entry.cookie) for entry in guest.take(one, 0, 20)]
    for gone in (name for name, _ in begun[2:] if name != b"mount"):
        (tmp_path / "a" / os.fsdecode(gone)).unlink()
    plant(tmp_path, *(f"a/new{index}=" for index in range(20)))
    rest = [entry.name for entry in guest.take(other, begun[-1][1], 1000)]
    for handle in (one, other):
        guest.data.release(handle)
    names = [name for name, _ in begun] + rest
    assert len(names) == len(set(names))
    assert {b"mount", *(b"n%d" % index for index in range(50))} <= set(names)


def test_what_is_removed_while_listing_is_left_out_and_the_rest_is_not(tmp_path: Path) -> None:
    plant(tmp_path, "a/gone=", "a/kept=", "a/late=")
    guest = Guest(f"{tmp_path}/a::/")
    handle = guest.names.opendir(guest.number("/"), guest.caller)
    iterator = guest.overlay.listings.entries(handle, 0)
    names = [entry.name for entry in next(iterator)]
    (tmp_path / "a/gone").unlink()
    names += [entry.name for entries in iterator for entry in entries]
    guest.data.release(handle)
    assert sorted(names) == [b".", b"..", b"kept", b"late"]


def test_every_listed_node_is_given_back_when_the_kernel_forgets(nested: Guest) -> None:
    nodes = nested.overlay.namespace.nodes
    before = len(nodes)
    listed = [attrs.number for name, attrs in nested.listing("/lib")[2:]]
    assert len(nodes) > before
    for number in listed:
        nested.names.forget(number, 1)
    nested.names.forget(nested.number("/lib"), 2)
    assert len(nodes) == before


# -- synthetic directories ----------------------------------------------------------------------


def test_without_a_root_entry_the_root_holds_the_mount_points(tmp_path: Path) -> None:
    plant(tmp_path, "a/f=1", "b/")
    guest = Guest(f"{tmp_path}/a::/x/y", f"{tmp_path}/b::/z")
    assert guest.ls("/") == ["x", "z"]
    assert guest.ls("/x") == ["y"]
    assert guest.read("/x/y/f") == "1"


def test_a_synthetic_directory_looks_like_one(tmp_path: Path) -> None:
    plant(tmp_path, "a/", "b/")
    guest = Guest(f"{tmp_path}/a::/", f"{tmp_path}/b::/x/y/z")
    for path in ("/x", "/x/y"):
        status = guest.stat(path).stat
        assert status.mode == stat.S_IFDIR | 0o555
        assert (status.uid, status.gid) == (0, 0)
        assert guest.is_read_only(path)
    assert [name for name, _ in guest.listing("/x")] == [b".", b"..", b"y"]


def test_nothing_is_created_on_the_host(tmp_path: Path) -> None:
    plant(tmp_path, "a/", "b/")
    guest = Guest(f"{tmp_path}/a::/", f"{tmp_path}/b::/x/y/z")
    guest.mkdir("/x/y/z/new")
    assert guest.ls("/x/y/z") == ["new"]
    assert os.listdir(tmp_path / "a") == []
    assert os.listdir(tmp_path / "b") == ["new"]


def test_a_directory_the_host_gains_later_shows_with_the_mount_points_on_top(
    tmp_path: Path,
) -> None:
    plant(tmp_path, "a/", "b/f=B")
    guest = Guest(f"{tmp_path}/a::/", f"{tmp_path}/b::/x/y/z")
    number = guest.number("/x")
    assert guest.ls("/x") == ["y"]
    plant(tmp_path, "a/x/content=A", "a/x/y/z/f=masked", "a/x/y/beside=A")
    assert guest.ls("/x") == ["content", "y"]
    assert guest.read("/x/content") == "A"
    assert guest.ls("/x/y") == ["beside", "z"]
    assert guest.read("/x/y/z/f") == "B"
    assert guest.number("/x") == number, "it is the same object to the guest"
    assert not guest.is_read_only("/x")
    guest.make("/x/new", "N")
    assert (tmp_path / "a/x/new").read_text() == "N"


def test_a_node_known_as_synthetic_learns_of_the_hosts_directory(tmp_path: Path) -> None:
    """By getattr alone, as when a guest keeps the directory as its working directory."""
    plant(tmp_path, "a/", "b/f=B")
    guest = Guest(f"{tmp_path}/a::/", f"{tmp_path}/b::/x/y")
    number = guest.number("/x")
    (tmp_path / "a/x").mkdir(mode=0o750)
    assert guest.attributes.getattr(number).stat.mode == stat.S_IFDIR | 0o750
    (tmp_path / "a/x").rmdir()
    assert guest.attributes.getattr(number).stat.mode == stat.S_IFDIR | 0o555


@pytest.mark.parametrize("replacement", ["a/x=file", "a/x->elsewhere", None])
def test_an_ancestor_the_host_replaces_turns_synthetic(
    tmp_path: Path, replacement: str | None
) -> None:
    plant(tmp_path, "a/x/content=A", "a/elsewhere/secret=S", "b/f=B")
    guest = Guest(f"{tmp_path}/a::/", f"{tmp_path}/b::/x/y")
    assert guest.ls("/x") == ["content", "y"]
    shutil.rmtree(tmp_path / "a/x")
    if replacement is not None:
        plant(tmp_path, replacement)
    assert guest.ls("/x") == ["y"]
    assert guest.read("/x/y/f") == "B"
    assert stat.S_ISDIR(guest.stat("/x").stat.mode)
    with fails(errno.EROFS):
        guest.make("/x/new")


def test_a_deleted_source_directory_answers_and_does_not_crash(tmp_path: Path) -> None:
    plant(tmp_path, "a/", "b/f=B")
    guest = Guest(f"{tmp_path}/a::/", f"{tmp_path}/b::/x")
    shutil.rmtree(tmp_path / "b")
    assert guest.ls("/x") == []
    with fails(errno.ENOENT):
        guest.number("/x/f")
    with fails(errno.ENOENT):
        guest.make("/x/f")

"""Another table under live nodes and handles: what a reload does to the core."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overlayd.core.assembly import survey
from overlayd.core.numbers import ROOT_NUMBER
from overlayd.core.remount import Outdated
from overlayd.host import fs
from overlayd.host.sources import open_sources
from overlayd.table.mount_tree import build_table
from overlayd.table.preopen import parse_preopen
from support.core_guest import Guest, each_fails, fails
from support.planting import plant


@pytest.fixture
def host(tmp_path: Path) -> Path:
    plant(tmp_path / "app", "file=app", "lib/x=masked", "lib/deep/y=masked", "data/z=z")
    plant(tmp_path / "lib", "x=lib", "deep/y=lib", "more/w=w")
    plant(tmp_path / "other", "x=other", "deep/v=v")
    return tmp_path


def remount(guest: Guest, *dirs: str) -> Outdated:
    """What `overlayd reload` does to the core, and has the patient threads do."""
    table = build_table(parse_preopen(text) for text in dirs)
    outdated = guest.overlay.remount(survey(table, open_sources(table)))
    guest.overlay.settle()
    with guest.overlay.namespace.patience():
        for handles in guest.overlay.data.writers().values():
            for handle in handles:
                guest.overlay.data.revoke(handle)
    return outdated


def tree(guest: Guest, top: str = "/") -> dict[str, tuple[str, str, bool]]:
    """Everything the namespace shows: kind, content and whether it is read-only, by path."""
    found = {}
    pending = [top]
    while pending:
        path = pending.pop()
        kind = stat.S_IFMT(guest.stat(path).stat.mode)
        with guest.overlay.namespace.patience():
            read_only = guest.is_read_only(path)
        if kind == stat.S_IFDIR:
            found[path] = ("dir", "", read_only)
            pending += [os.path.join(path, name) for name in guest.ls(path)]
        else:
            found[path] = ("file", guest.read(path), read_only)
    return found


# -- what comes and goes ------------------------------------------------------------------------


def test_a_preopen_that_is_added_masks_at_once(host: Path) -> None:
    guest = Guest(f"{host}/app::/")
    masked, file = guest.number("/lib"), guest.number("/lib/x")
    outdated = remount(guest, f"{host}/app::/", f"{host}/lib::/lib")
    assert guest.read("/lib/x") == "lib"
    assert guest.ls("/lib") == ["deep", "more", "x"]
    each_fails(
        errno.ESTALE,
        lambda: guest.names.lookup(masked, b"x"),
        lambda: guest.attributes.getattr(masked),
        lambda: guest.data.open(file, os.O_RDONLY, guest.caller),
    )
    assert {(ROOT_NUMBER, b"lib"), (masked, b"x")} <= outdated.names


def test_a_preopen_that_is_removed_unmasks_at_once(host: Path) -> None:
    guest = Guest(f"{host}/app::/", f"{host}/lib::/lib")
    gone, below = guest.number("/lib"), guest.number("/lib/deep")
    assert guest.read("/lib/x") == "lib"
    remount(guest, f"{host}/app::/")
    assert guest.read("/lib/x") == "masked"
    for number in (gone, below):
        with fails(errno.ESTALE):
            guest.names.lookup(number, b"x")


def test_what_stays_keeps_its_nodes_and_handles(host: Path) -> None:
    guest = Guest(f"{host}/app::/", f"{host}/lib::/lib")
    paths = ("/", "/file", "/data", "/data/z", "/lib", "/lib/deep", "/lib/deep/y")
    numbers = {path: guest.number(path) for path in paths}
    handle = guest.open("/lib/x", os.O_RDWR)
    stream = guest.names.opendir(numbers["/lib"], guest.caller)
    outdated = remount(guest, f"{host}/app::/", f"{host}/lib::/lib", f"{host}/other::/other")
    assert outdated == Outdated(frozenset({(ROOT_NUMBER, b"other")}), frozenset())
    assert {path: guest.number(path) for path in paths} == numbers
    assert guest.data.read(handle, 0, 10) == b"lib"
    assert guest.data.write(handle, 0, b"new") == 3
    assert {name for name, _ in guest.entries(stream)} == {b".", b"..", b"deep", b"more", b"x"}


def test_a_directory_becomes_one_above_a_mount_point_and_back(host: Path) -> None:
    guest = Guest(f"{host}/app::/")
    data = guest.number("/data")
    guest.number("/data/z")
    remount(guest, f"{host}/app::/", f"{host}/lib::/data/in/lib")
    assert guest.number("/data") == data, "a working directory there goes on"
    inner = guest.names.lookup(guest.names.lookup(data, b"in").number, b"lib").number
    assert guest.names.lookup(inner, b"x").number == guest.number("/data/in/lib/x")
    with fails(errno.EBUSY):
        guest.rename("/data", "/moved")
    remount(guest, f"{host}/app::/")
    assert guest.number("/data") == data
    assert guest.ls("/data") == ["z"]
    guest.rename("/data", "/moved")
    assert guest.read("/moved/z") == "z"


def test_another_source_at_the_same_place(host: Path) -> None:
    guest = Guest(f"{host}/lib::/")
    deep = guest.number("/deep")
    stream = guest.names.opendir(ROOT_NUMBER, guest.caller)
    handle = guest.open("/x", os.O_RDWR)
    remount(guest, f"{host}/other::/")
    assert guest.read("/x") == "other"
    assert guest.ls("/deep") == ["v"]
    with fails(errno.ESTALE):
        guest.names.lookup(deep, b"y")
    assert guest.data.read(handle, 0, 10) == b"lib", "what is open goes on"
    guest.data.write(handle, 0, b"LIB")
    assert (host / "lib/x").read_text() == "LIB"
    listed = dict(guest.entries(stream))
    assert b"more" in listed, "a stream goes on with what it has open"
    with fails(errno.ESTALE):
        guest.names.lookup(listed[b"more"].number, b"w")


def test_a_removed_preopen_that_comes_back(host: Path) -> None:
    both = (f"{host}/app::/", f"{host}/lib::/lib")
    guest = Guest(*both)
    handle = guest.open("/lib/x")
    guest.number("/lib/deep/y")
    remount(guest, both[0])
    remount(guest, *both)
    assert guest.read("/lib/deep/y") == "lib"
    assert guest.data.read(handle, 0, 10) == b"lib"


def test_a_file_attached_by_itself_comes_and_goes(host: Path) -> None:
    guest = Guest(f"{host}/app::/")
    assert guest.read("/file") == "app"
    remount(guest, f"{host}/app::/", f"{host}/lib/x::/file")
    assert guest.read("/file") == "lib"
    handle = guest.open("/file")
    remount(guest, f"{host}/app::/")
    assert guest.read("/file") == "app"
    assert guest.data.read(handle, 0, 10) == b"lib"


# -- read-only ----------------------------------------------------------------------------------


def test_a_preopen_that_turns_read_only_takes_no_more_writes(host: Path) -> None:
    guest = Guest(f"{host}/app::/", f"{host}/lib::/lib")
    ours, others = guest.open("/lib/x", os.O_RDWR), guest.open("/file", os.O_RDWR)
    remount(guest, f"{host}/app::/", f"{host}/lib::/lib::ro")
    with fails(errno.EROFS):
        guest.data.write(ours, 0, b"no")
    assert guest.data.read(ours, 0, 10) == b"lib"
    assert guest.data.write(others, 0, b"yes") == 3
    with fails(errno.EROFS):
        guest.mkdir("/lib/new")
    remount(guest, f"{host}/app::/", f"{host}/lib::/lib")
    assert guest.data.write(ours, 0, b"yes") == 3
    guest.mkdir("/lib/new")


def test_an_alias_that_a_reload_makes_holds_for_open_handles(host: Path) -> None:
    os.link(host / "lib/x", host / "app/alias")
    guest = Guest(f"{host}/app::/")
    alias, inside = guest.open("/alias", os.O_RDWR), guest.open("/data/z", os.O_RDWR)
    remount(guest, f"{host}/app::/", f"{host}/lib::/ro/lib::ro", f"{host}/app/data::/ro/data::ro")
    for handle in (alias, inside):
        with fails(errno.EROFS):
            guest.data.write(handle, 0, b"no")
    with guest.overlay.namespace.patience(), fails(errno.EROFS):
        guest.write("/alias", "no")
    assert (host / "lib/x").read_text() == "lib"


def test_an_open_that_a_reload_overtook(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source keeps the open waiting while its preopen turns read-only."""
    guest = Guest(f"{host}/app::/")
    reopen = fs.reopen

    def overtaken(path: fs.Fd, flags: int) -> fs.Fd:
        monkeypatch.setattr(fs, "reopen", reopen)
        remount(guest, f"{host}/app::/::ro")
        return reopen(path, flags)

    number = guest.number("/file")
    monkeypatch.setattr(fs, "reopen", overtaken)
    handle = guest.data.open(number, os.O_RDWR, guest.caller)
    with fails(errno.EROFS):
        guest.data.write(handle, 0, b"no")
    assert (host / "app/file").read_text() == "app"


def test_an_opendir_that_a_reload_overtook(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opened what was there before: no stream of what is there now."""
    guest = Guest(f"{host}/app::/", f"{host}/lib::/lib")
    check_access = fs.check_access

    def overtaken(path: fs.Fd, mode: int) -> None:
        monkeypatch.setattr(fs, "check_access", check_access)
        remount(guest, f"{host}/app::/", f"{host}/other::/lib")
        check_access(path, mode)

    number = guest.number("/lib")
    monkeypatch.setattr(fs, "check_access", overtaken)
    with fails(errno.ESTALE):
        guest.names.opendir(number, guest.caller)
    assert len(guest.overlay.namespace.handles) == 0
    assert guest.ls("/lib") == ["deep", "x"]


def test_a_lookup_that_a_reload_overtook(host: Path) -> None:
    """It waited for so long that all is settled when it comes upon a place of the former tree."""
    guest = Guest(f"{host}/app::/", f"{host}/lib::/data/in/lib")
    data = guest.number("/data")
    where = guest.overlay.namespace.where(guest.overlay.namespace.nodes.get(data))
    found = guest.overlay.namespace.child(where, b"in")
    remount(guest, f"{host}/app::/")
    with fails(errno.ESTALE):
        guest.overlay.namespace.adopt(guest.overlay.namespace.nodes.get(data), b"in", found)
    assert guest.ls("/data") == ["z"]


# -- any table after any other ------------------------------------------------------------------

HOSTS = ("app", "app/lib", "lib", "lib/deep", "other", "lib/x")
GUESTS = ("/", "/lib", "/lib/deep", "/lib/deep/in", "/data", "/a/b", "/a", "/data/z")
ENTRIES = st.tuples(st.sampled_from(HOSTS), st.sampled_from(GUESTS), st.sampled_from(("ro", "rw")))
TABLES = st.lists(ENTRIES, min_size=1, max_size=5, unique_by=lambda entry: entry[1])


def usable(host: Path, entries: list[tuple[str, str, str]]) -> list[str]:
    """The entries that make a valid table, as many as there are from the front."""
    chosen: list[str] = []
    for source, guest, mode in entries:
        attempt = [*chosen, f"{host}/{source}::{guest}::{mode}"]
        try:
            open_sources(build_table(parse_preopen(text) for text in attempt))
        except Exception:
            continue
        chosen = attempt
    return chosen or [f"{host}/app::/"]


@given(tables=st.lists(TABLES, min_size=2, max_size=4), data=st.data())
@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_remounted_namespace_is_like_a_new_one(
    host: Path, tables: list[list[tuple[str, str, str]]], data: st.DataObject
) -> None:
    first, *others = (usable(host, entries) for entries in tables)
    guest = Guest(*first)
    for dirs in others:
        before = tree(guest)
        numbers = {path: guest.number(path) for path in before}
        if data.draw(st.booleans(), label="with open directories"):
            for path, (kind, _, _) in before.items():
                if kind == "dir":
                    guest.names.opendir(numbers[path], guest.caller)
        outdated = remount(guest, *dirs)
        after = tree(Guest(*dirs))
        assert tree(guest) == after
        for path, number in numbers.items():
            check_old_number(guest, path, number, outdated)


def check_old_number(guest: Guest, path: str, number: int, outdated: Outdated) -> None:
    """A number the kernel holds stands for what is at its path now, or for nothing."""
    above, name = os.path.split(path)
    is_told = os.fsencode(name) in {known for _, known in outdated.names}
    try:
        guest.attributes.getattr(number)
    except OSError as error:
        if error.errno != errno.ESTALE or not is_told:
            raise
        return
    try:
        assert number == guest.number(path) or is_told, f"{above} keeps {name}"
    except (FileNotFoundError, NotADirectoryError):
        assert is_told, f"{above} keeps {name}"

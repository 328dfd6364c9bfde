"""`explain`: what provides a path, and why it may or may not be written."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from overlayd.core.explain import Explanation, explain
from overlayd.table.guest_path import parse_guest_path
from support.core_guest import Guest, fails
from support.planting import plant


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    plant(tmp_path, "a/f=F", "a/d/e/", "a/l->/lib/x", "a/out->../../../etc", "b/x=X", "c=C")
    plant(tmp_path, "a/loop->loop", "a/etc/g=G")
    return Guest(
        f"{tmp_path}/a::/", f"{tmp_path}/b::/lib::ro", f"{tmp_path}/c::/one", f"{tmp_path}/b::/s/t"
    )


def ask(guest: Guest, path: str) -> Explanation:
    return explain(guest.overlay.namespace, guest.overlay.access, parse_guest_path(path))


def test_a_file_of_the_root_source(guest: Guest, tmp_path: Path) -> None:
    answer = ask(guest, "f")
    assert (answer.asked, answer.guest, answer.kind) == ("/f", "/f", "file")
    assert answer.provider == f"{tmp_path}/a::/::rw"
    assert answer.host == f"{tmp_path}/a/f"
    assert answer.writable


def test_the_root(guest: Guest, tmp_path: Path) -> None:
    answer = ask(guest, "/")
    assert (answer.guest, answer.kind, answer.host) == ("/", "directory", f"{tmp_path}/a")


def test_a_file_below_a_read_only_mount_point(guest: Guest, tmp_path: Path) -> None:
    answer = ask(guest, "/lib/x")
    assert answer.host == f"{tmp_path}/b/x"
    assert not answer.writable
    assert answer.provider == f"{tmp_path}/b::/lib::ro"
    assert "read-only" in answer.reason


def test_a_file_attached_by_itself(guest: Guest, tmp_path: Path) -> None:
    answer = ask(guest, "/one")
    assert (answer.kind, answer.host) == ("file", f"{tmp_path}/c")


def test_a_synthetic_directory(guest: Guest) -> None:
    answer = ask(guest, "/s")
    assert (answer.provider, answer.host, answer.writable) == (None, None, False)
    assert "synthetic" in answer.reason


def test_links_on_the_way_are_followed_inside_and_at_the_end_are_not(
    guest: Guest, tmp_path: Path
) -> None:
    assert ask(guest, "/l").kind == "symbolic link"
    through = ask(guest, "/out/g")
    assert (through.asked, through.guest) == ("/out/g", "/etc/g")
    assert through.host == f"{tmp_path}/a/etc/g"


@pytest.mark.parametrize(
    ("path", "number"),
    [("/none", errno.ENOENT), ("/f/x", errno.ENOTDIR), ("/loop/x", errno.ELOOP)],
)
def test_what_does_not_exist(guest: Guest, path: str, number: int) -> None:
    with fails(number):
        ask(guest, path)

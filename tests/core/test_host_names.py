"""Names are bytes (SPEC.md section 3, rule 8); what no directory can hold is refused."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.core_guest import Guest, each_fails, fails
from support.planting import plant

host_names = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    plant(tmp_path, "a/")
    return Guest(f"{tmp_path}/a::/")


@given(name=host_names)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_the_host_can_hold_passes_unchanged(
    guest: Guest, tmp_path: Path, name: bytes
) -> None:
    root = guest.number("/")
    number = guest.names.mkdir(root, name, 0o755, guest.caller).number
    assert os.listdir(os.fsencode(tmp_path / "a")) == [name]
    assert [listed for listed, _ in guest.listing("/")][2:] == [name]
    assert guest.names.lookup(root, name).number == number
    guest.names.rmdir(root, name, guest.caller)


@pytest.mark.parametrize("name", [b"n" * 255, "ä".encode() * 127, b"\xff\xfe", b" ", b"\n", b"-rf"])
def test_awkward_names(guest: Guest, name: bytes) -> None:
    guest.make(b"/" + name, "content")
    assert guest.read(b"/" + name) == "content"
    guest.unlink(b"/" + name)


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"x/"])
def test_what_is_no_name(guest: Guest, name: bytes) -> None:
    root, caller = guest.number("/"), guest.caller
    guest.make("/f")
    file = guest.number("/f")
    each_fails(
        errno.EINVAL,
        lambda: guest.names.lookup(root, name),
        lambda: guest.names.mkdir(root, name, 0o755, caller),
        lambda: guest.names.mknod(root, name, stat.S_IFREG, 0, caller),
        lambda: guest.names.symlink(root, name, b"x", caller),
        lambda: guest.names.link(file, root, name, caller),
        lambda: guest.names.unlink(root, name, caller),
        lambda: guest.names.rmdir(root, name, caller),
        lambda: guest.names.rename(root, b"f", root, name, 0, caller),
        lambda: guest.names.rename(root, name, root, b"g", 0, caller),
        lambda: guest.data.create(root, name, 0o644, os.O_RDWR, caller),
    )


@pytest.mark.parametrize("flags", [4, 8, 3, 1 << 20])
def test_unknown_flags_of_rename(guest: Guest, flags: int) -> None:
    guest.make("/f")
    with fails(errno.EINVAL):
        guest.rename("/f", "/g", flags)


def test_a_file_is_no_directory(guest: Guest) -> None:
    guest.make("/f")
    file = guest.number("/f")
    each_fails(
        errno.ENOTDIR,
        lambda: guest.names.lookup(file, b"x"),
        lambda: guest.names.mkdir(file, b"x", 0o755, guest.caller),
        lambda: guest.names.opendir(file, guest.caller),
        lambda: guest.names.rename(file, b"x", guest.number("/"), b"y", 0, guest.caller),
    )


def test_a_directory_is_no_file(guest: Guest) -> None:
    guest.mkdir("/d")
    for flags in (os.O_RDONLY, os.O_RDWR):
        with fails(errno.EISDIR):
            guest.open("/d", flags)
    with fails(errno.EINVAL):
        guest.readlink("/d")

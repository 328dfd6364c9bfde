"""The table of SPEC.md section 6, a test or more for each line."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from overlayd.core.types import Changes
from overlayd.host.fs import RENAME_EXCHANGE, RENAME_NOREPLACE
from support.core_guest import ROOT, Guest, each_fails, fails
from support.planting import plant

NOW = 1_700_000_000_000_000_000

CHANGES = [
    Changes(mode=0o600),
    Changes(uid=1),
    Changes(gid=1),
    Changes(size=0),
    Changes(atime_ns=NOW),
    Changes(mtime_ns=NOW),
]


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    """/ is writable, /ro is not, /m is another source, /s/t lies in synthetic /s."""
    plant(tmp_path, "a/f=A", "a/d/", "a/e/", "a/ro/", "a/l->f", "r/f=R", "r/d/", "r/l->f")
    plant(tmp_path, "m/f=M", "m/d/", "t/f=T", "a/up/m/", "u/")
    return Guest(
        f"{tmp_path}/a::/",
        f"{tmp_path}/r::/ro::ro",
        f"{tmp_path}/m::/m",
        f"{tmp_path}/t::/s/t",
        f"{tmp_path}/u::/up/m",
    )


# -- any change through `ro` is EROFS -----------------------------------------------------------

CHANGES_OF_A_DIRECTORY: dict[str, Callable[[Guest], object]] = {
    "create": lambda g: g.create("/ro/new"),
    "create what exists": lambda g: g.create("/ro/f"),
    "mkdir": lambda g: g.mkdir("/ro/new"),
    "mknod": lambda g: g.mknod("/ro/new", stat.S_IFIFO | 0o600),
    "symlink": lambda g: g.symlink("x", "/ro/new"),
    "link": lambda g: g.link("/ro/f", "/ro/new"),
    "unlink": lambda g: g.unlink("/ro/f"),
    "unlink a link": lambda g: g.unlink("/ro/l"),
    "rmdir": lambda g: g.rmdir("/ro/d"),
    "rename": lambda g: g.rename("/ro/f", "/ro/new"),
    "rename a directory": lambda g: g.rename("/ro/d", "/ro/new"),
    "exchange": lambda g: g.rename("/ro/f", "/ro/d", RENAME_EXCHANGE),
}


@pytest.mark.parametrize("attempt", CHANGES_OF_A_DIRECTORY.values(), ids=CHANGES_OF_A_DIRECTORY)
def test_read_only_directory(guest: Guest, attempt: Callable[[Guest], object]) -> None:
    with fails(errno.EROFS):
        attempt(guest)


@pytest.mark.parametrize("path", ["/ro", "/ro/f", "/ro/d", "/ro/l"])
@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_read_only_attributes(guest: Guest, path: str, changes: Changes) -> None:
    with fails(errno.EROFS):
        guest.change(path, changes)


@pytest.mark.parametrize("path", ["/ro", "/ro/f", "/ro/d"])
def test_read_only_extended_attributes(guest: Guest, path: str) -> None:
    number = guest.number(path)
    with fails(errno.EROFS):
        guest.attributes.setxattr(number, b"user.x", b"1", guest.caller)
    with fails(errno.EROFS):
        guest.attributes.removexattr(number, b"user.x", guest.caller)


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC])
def test_read_only_open(guest: Guest, flags: int, tmp_path: Path) -> None:
    with fails(errno.EROFS):
        guest.open("/ro/f", flags)
    assert (tmp_path / "r/f").read_text() == "R"


def test_read_only_access(guest: Guest) -> None:
    for path in ("/ro", "/ro/f", "/s"):
        guest.attributes.access(guest.number(path), os.R_OK, guest.caller)
        with fails(errno.EROFS):
            guest.attributes.access(guest.number(path), os.W_OK | os.R_OK, guest.caller)


def test_reading_a_read_only_file_is_fine(guest: Guest) -> None:
    assert guest.read("/ro/f") == "R"
    assert guest.readlink("/ro/l") == b"f"
    handle = guest.open("/ro/f")
    with fails(errno.EBADF):
        guest.data.write(handle, 0, b"x")
    with fails(errno.EROFS):
        guest.change("/ro/f", Changes(size=0), handle)


def test_reading_through_ro_leaves_the_access_time_alone(guest: Guest, tmp_path: Path) -> None:
    for path in ("r/f", "r/d"):
        os.utime(tmp_path / path, ns=(0, NOW))  # so old that relatime would renew it
    assert guest.read("/ro/f") == "R"
    assert guest.ls("/ro/d") == []
    assert (tmp_path / "r/f").stat().st_atime_ns == 0
    assert (tmp_path / "r/d").stat().st_atime_ns == 0


# -- create in a synthetic directory is EROFS ---------------------------------------------------


def test_create_in_a_synthetic_directory(guest: Guest) -> None:
    each_fails(
        errno.EROFS,
        lambda: guest.create("/s/new"),
        lambda: guest.mkdir("/s/new"),
        lambda: guest.mknod("/s/new", stat.S_IFREG | 0o600),
        lambda: guest.symlink("x", "/s/new"),
        lambda: guest.unlink("/s/new"),
        lambda: guest.rmdir("/s/new"),
        lambda: guest.change("/s", Changes(mode=0o777)),
        lambda: guest.attributes.setxattr(guest.number("/s"), b"user.x", b"", guest.caller),
    )


# -- rename or remove a mount point or an ancestor of one is EBUSY -------------------------------


@pytest.mark.parametrize("path", ["/m", "/up", "/up/m", "/s", "/s/t", "/ro"])
def test_a_mount_point_or_what_leads_to_one_stays(guest: Guest, path: str) -> None:
    beside = os.path.join(os.path.dirname(path), "moved")
    each_fails(
        errno.EBUSY,
        lambda: guest.rmdir(path),
        lambda: guest.unlink(path),
        lambda: guest.rename(path, beside),
    )


@pytest.mark.parametrize("flags", [0, RENAME_NOREPLACE, RENAME_EXCHANGE])
@pytest.mark.parametrize("path", ["/m", "/up", "/ro", "/s"])
def test_nothing_is_renamed_over_a_mount_point(guest: Guest, path: str, flags: int) -> None:
    with pytest.raises(OSError) as caught:
        guest.rename("/e", path, flags)
    expected = (errno.EBUSY, errno.EEXIST) if flags == RENAME_NOREPLACE else (errno.EBUSY,)
    assert caught.value.errno in expected
    assert guest.ls("/e") == []


# -- create over a mount point or synthetic directory is EEXIST -----------------------------------


@pytest.mark.parametrize("path", ["/m", "/s", "/s/t", "/up", "/ro"])
def test_create_over_a_mount_point(guest: Guest, path: str) -> None:
    each_fails(
        errno.EEXIST,
        lambda: guest.create(path),
        lambda: guest.mkdir(path),
        lambda: guest.mknod(path, stat.S_IFREG | 0o600),
        lambda: guest.symlink("x", path),
    )


def test_link_over_a_mount_point(guest: Guest) -> None:
    for path in ("/m", "/s"):
        with fails(errno.EEXIST):
            guest.link("/f", path)


# -- rename or link between mount points is EXDEV -------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/f", "/m/new"),
        ("/m/f", "/new"),
        ("/m/f", "/f"),
        ("/m/f", "/s/t/f"),
        ("/m/d", "/d"),
        ("/f", "/ro/f"),
        ("/ro/f", "/new"),
        ("/m/none", "/new"),
    ],
)
@pytest.mark.parametrize("flags", [0, RENAME_NOREPLACE, RENAME_EXCHANGE])
def test_rename_between_mount_points(guest: Guest, old: str, new: str, flags: int) -> None:
    with fails(errno.EXDEV):
        guest.rename(old, new, flags)


@pytest.mark.parametrize(("old", "new"), [("/f", "/m/new"), ("/m/f", "/new"), ("/ro/f", "/new")])
def test_link_between_mount_points(guest: Guest, old: str, new: str) -> None:
    with fails(errno.EXDEV):
        guest.link(old, new)
    assert not guest.exists(new)


def test_one_directory_attached_twice_is_two_mount_points(tmp_path: Path) -> None:
    """Though the host could do it: `mv` and friends copy, as between bind mounts."""
    plant(tmp_path, "a/f=1", "a/d/")
    guest = Guest(f"{tmp_path}/a::/x", f"{tmp_path}/a::/y")
    each_fails(
        errno.EXDEV,
        lambda: guest.rename("/x/f", "/y/g"),
        lambda: guest.rename("/x/d", "/y/e"),
        lambda: guest.link("/x/f", "/y/g"),
    )


def test_a_file_attached_by_itself_is_a_mount_point(tmp_path: Path) -> None:
    plant(tmp_path, "a/g=1", "f=F")
    guest = Guest(f"{tmp_path}/a::/", f"{tmp_path}/f::/f")
    with fails(errno.EXDEV):
        guest.link("/f", "/h")
    with fails(errno.EBUSY):
        guest.rename("/f", "/h")
    with fails(errno.EBUSY):
        guest.rename("/g", "/f")
    with fails(errno.EBUSY):
        guest.unlink("/f")
    guest.write("/f", "changed")
    assert (tmp_path / "f").read_text() == "changed"


# -- names, the host's own errors, what is gone ---------------------------------------------------


def test_a_name_of_256_bytes(guest: Guest) -> None:
    root, long, caller = guest.number("/"), b"n" * 256, guest.caller
    each_fails(
        errno.ENAMETOOLONG,
        lambda: guest.names.lookup(root, long),
        lambda: guest.names.mkdir(root, long, 0o755, caller),
        lambda: guest.names.mknod(root, long, stat.S_IFREG, 0, caller),
        lambda: guest.names.symlink(root, long, b"x", caller),
        lambda: guest.names.link(guest.number("/f"), root, long, caller),
        lambda: guest.names.unlink(root, long, caller),
        lambda: guest.names.rmdir(root, long, caller),
        lambda: guest.names.rename(root, b"f", root, long, 0, caller),
        lambda: guest.names.rename(root, long, root, b"f", 0, caller),
        lambda: guest.data.create(root, long, 0o644, os.O_RDWR, caller),
    )
    with fails(errno.ENAMETOOLONG):
        guest.names.lookup(guest.number("/s"), long)


def test_the_hosts_own_errors_come_unchanged(guest: Guest) -> None:
    cases: list[tuple[int, Callable[[], object]]] = [
        (errno.ENOENT, lambda: guest.unlink("/none")),
        (errno.EEXIST, lambda: guest.mkdir("/d")),
        (errno.EISDIR, lambda: guest.unlink("/d")),
        (errno.ENOTDIR, lambda: guest.rmdir("/f")),
        (errno.ENOTDIR, lambda: guest.rename("/d", "/f")),
        (errno.EISDIR, lambda: guest.rename("/f", "/d")),
        (errno.EINVAL, lambda: guest.rename("/d", "/d/below")),
        (errno.EEXIST, lambda: guest.rename("/f", "/l", RENAME_NOREPLACE)),
        (errno.EPERM, lambda: guest.link("/d", "/dd")),
        (errno.ENODATA, lambda: guest.attributes.getxattr(guest.number("/f"), b"user.x", ROOT)),
        (errno.EOPNOTSUPP, lambda: guest.attributes.getxattr(guest.number("/f"), b"bad.x", ROOT)),
    ]
    for number, attempt in cases:
        with fails(number):
            attempt()


def test_a_directory_that_is_not_empty(guest: Guest) -> None:
    guest.make("/d/inside")
    with fails(errno.ENOTEMPTY):
        guest.rmdir("/d")
    with fails(errno.ENOTEMPTY):
        guest.rename("/e", "/d")


def test_what_is_gone(guest: Guest, tmp_path: Path) -> None:
    file, directory = guest.number("/f"), guest.number("/d")
    (tmp_path / "a/f").unlink()
    (tmp_path / "a/d").rmdir()
    with fails(errno.ENOENT):
        guest.number("/f")
    with fails(errno.ESTALE):
        guest.attributes.getattr(file)
    with fails(errno.ESTALE):
        guest.data.open(file, os.O_RDONLY, guest.caller)
    with fails(errno.ESTALE):
        guest.names.opendir(directory, guest.caller)


def test_numbers_nobody_was_given(guest: Guest) -> None:
    each_fails(
        errno.ESTALE,
        lambda: guest.attributes.getattr(77),
        lambda: guest.names.lookup(77, b"f"),
        lambda: guest.names.opendir(77, guest.caller),
        lambda: guest.data.open(77, os.O_RDONLY, guest.caller),
    )
    for closed in (
        lambda: guest.data.read(77, 0, 1),
        lambda: guest.data.write(77, 0, b""),
        lambda: guest.data.release(77),
        lambda: guest.data.fsync(77, False),
        lambda: guest.data.flush(77),
        lambda: list(guest.overlay.listings.entries(77, 0)),
    ):
        with fails(errno.EBADF):
            closed()

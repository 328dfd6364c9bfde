"""The table of rights: complete, and with no row that nobody asked for."""

from __future__ import annotations

import os

import pyfuse3
import pytest

from overlayd.core.access import RIGHTS, Needs, screen_flags, wants_to_change
from support.core_guest import fails

NO_REQUESTS = {"init", "stacktrace"}
"""Attributes of pyfuse3.Operations that are callable and answer no request of a guest."""

REFINEMENTS = {"open for writing", "rename of a directory"}
"""Rows that tell two uses of one request apart."""

CHANGING = {
    *("mknod", "mkdir", "symlink", "create", "unlink", "rmdir", "rename", "link"),
    *("write", "setattr", "setxattr", "removexattr"),
}


def offered() -> set[str]:
    members = vars(pyfuse3.Operations).items()
    requests = {name for name, member in members if callable(member) and name[0] != "_"}
    return requests - NO_REQUESTS


def test_every_operation_is_listed_once() -> None:
    assert set(RIGHTS) - REFINEMENTS == offered()


def test_reading_needs_nothing_and_changing_needs_something() -> None:
    needing = {name for name, needs in RIGHTS.items() if needs is not Needs.NOTHING}
    assert needing == CHANGING | REFINEMENTS


def test_what_names_two_directories_needs_both() -> None:
    for operation in ("rename", "rename of a directory"):
        assert Needs.PARENT | Needs.NEW_PARENT in RIGHTS[operation]
    assert Needs.NEW_PARENT | Needs.INODE in RIGHTS["link"]


def test_removing_a_name_does_not_need_the_inode_and_removing_a_directory_does() -> None:
    assert Needs.INODE not in RIGHTS["unlink"]
    assert Needs.INODE not in RIGHTS["rename"]
    assert Needs.INODE in RIGHTS["rmdir"]
    assert Needs.INODE in RIGHTS["rename of a directory"]


# -- flags of open(2) ---------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
def test_access_modes_and_harmless_flags_pass(mode: int) -> None:
    flags = mode | os.O_APPEND | os.O_TRUNC | os.O_NONBLOCK
    assert screen_flags(flags) == flags


@pytest.mark.parametrize(
    "flag",
    [os.O_CREAT, os.O_EXCL, os.O_DIRECT, os.O_NOFOLLOW, os.O_PATH, os.O_DIRECTORY, 1 << 30]
    + [os.O_SYNC, os.O_DSYNC],
)
def test_everything_else_stays_out(flag: int) -> None:
    assert screen_flags(os.O_RDWR | flag) == os.O_RDWR


def test_a_temporary_file_is_no_directory_opened_for_writing() -> None:
    assert screen_flags(os.O_RDWR | os.O_TMPFILE) == os.O_RDWR


def test_no_access_mode() -> None:
    with fails(22):
        screen_flags(os.O_ACCMODE)


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        (os.O_RDONLY, False),
        (os.O_RDONLY | os.O_APPEND, False),
        (os.O_RDONLY | os.O_TRUNC, True),
        (os.O_WRONLY, True),
        (os.O_RDWR, True),
        (os.O_ACCMODE, True),
    ],
)
def test_truncating_changes_the_file_even_read_only(flags: int, changes: bool) -> None:
    assert wants_to_change(flags) is changes

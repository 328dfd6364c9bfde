"""Several users on one mount: what they make is theirs, and the host's own rules hold for them.

Each rule is tried on the mount and on a plain directory of the host, which must agree.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.live import make_dirs
from support.mounting import mounted
from support.processes import User, in_child, tried

pytestmark = pytest.mark.usefixtures("data_way")

ALICE = User(64001, 64011)
BOB = User(64002, 64012, umask=0o077)
MEMBER = User(64003, 64013, groups=(64050, 64051))


class Made(NamedTuple):
    """Whose something is, and what may be done with it."""

    uid: int
    gid: int
    mode: str


def made(path: Path) -> Made:
    status = os.lstat(path)
    return Made(status.st_uid, status.st_gid, stat.filemode(status.st_mode))


@pytest.fixture
def open_to_all(open_path: Path) -> Iterator[tuple[Path, Path]]:
    """A mount for everyone and a plain directory with the very same content."""
    (source,) = make_dirs(open_path, "source")
    for name, mode, gid in (
        ("shared", 0o777, 0),
        ("set-gid", 0o2777, 64050),
        ("sticky", 0o1777, 0),
        ("closed", 0o700, 0),
        ("group-only", 0o770, 64051),
    ):
        (source / name).mkdir()
        os.chown(source / name, 0, gid)
        (source / name).chmod(mode)
    (source / "closed/file").write_text("closed")
    (source / "closed/file").chmod(0o644)
    (source / "of-group").write_text("group")
    os.chown(source / "of-group", 0, 64050)
    (source / "of-group").chmod(0o640)
    plain = open_path / "plain"
    shutil.copytree(source, plain)
    for path in (source, *source.rglob("*")):
        os.chown(plain / path.relative_to(source), path.stat().st_uid, path.stat().st_gid)
        os.chmod(plain / path.relative_to(source), stat.S_IMODE(path.stat().st_mode))
    with mounted(open_path, f"{source}::/", options=["--allow-other"]) as top:
        yield top, plain


def make_everything(directory: Path) -> None:
    """One object of each kind, with modes that the umask bites into."""
    os.close(os.open(directory / "created", os.O_CREAT | os.O_WRONLY, 0o666))
    os.mkdir(directory / "dir", 0o777)
    os.mkfifo(directory / "fifo", 0o666)
    os.mknod(directory / "node", stat.S_IFREG | 0o666)
    os.symlink("target", directory / "link")
    os.link(directory / "created", directory / "linked")


KINDS = ("created", "dir", "fifo", "node", "link", "linked")
everyone = pytest.mark.parametrize("user", [ALICE, BOB, MEMBER], ids=["alice", "bob", "member"])


@everyone
@pytest.mark.parametrize("where", ["shared", "set-gid", "sticky"])
def test_what_a_user_makes(open_to_all: tuple[Path, Path], user: User, where: str) -> None:
    top, plain = open_to_all
    for tree in open_to_all:
        in_child(make_everything, tree / where, user=user)
    for kind in KINDS:
        assert made(top / where / kind) == made(plain / where / kind), kind
        assert made(top / where / kind).uid == user.uid


def both(open_to_all: tuple[Path, Path], user: User, call: Callable[[Path], object]) -> str:
    """How CALL ends for USER: on the mount as on the plain directory."""
    ends = [tried(call, tree, user=user) for tree in open_to_all]
    assert ends[0] == ends[1], f"mount: {ends[0]}, plain directory: {ends[1]}"
    return ends[0]


def test_a_directory_that_may_not_be_searched(open_to_all: tuple[Path, Path]) -> None:
    """Also where root has just looked the file up, so that the kernel knows it."""
    for tree in open_to_all:
        assert (tree / "closed/file").read_text() == "closed"
    assert both(open_to_all, ALICE, lambda tree: (tree / "closed/file").read_text()) == "EACCES"
    assert both(open_to_all, ALICE, lambda tree: os.stat(tree / "closed/file")) == "EACCES"
    assert both(open_to_all, ALICE, lambda tree: os.listdir(tree / "closed")) == "EACCES"
    assert both(open_to_all, ALICE, lambda tree: (tree / "closed/new").touch()) == "EACCES"
    assert both(open_to_all, ALICE, lambda tree: os.chdir(tree / "closed")) == "EACCES"


@pytest.mark.parametrize(
    ("user", "expected"), [(MEMBER, "ok"), (ALICE, "EACCES")], ids=["member", "stranger"]
)
def test_supplementary_groups_count(
    open_to_all: tuple[Path, Path], user: User, expected: str
) -> None:
    assert both(open_to_all, user, lambda tree: (tree / "of-group").read_text()) == expected
    assert both(open_to_all, user, lambda tree: os.listdir(tree / "group-only")) == expected
    assert both(open_to_all, user, lambda tree: (tree / "group-only/new").touch()) == expected


def test_a_sticky_directory(open_to_all: tuple[Path, Path]) -> None:
    for tree in open_to_all:
        in_child((tree / "sticky/alices").touch, user=ALICE)
    for call in (
        lambda tree: os.unlink(tree / "sticky/alices"),
        lambda tree: os.rename(tree / "sticky/alices", tree / "sticky/bobs"),
    ):
        assert both(open_to_all, BOB, call) in ("EPERM", "EACCES")
    assert both(open_to_all, ALICE, lambda tree: os.unlink(tree / "sticky/alices")) == "ok"


def test_owners_alone_change_modes_owners_and_times(open_to_all: tuple[Path, Path]) -> None:
    for tree in open_to_all:
        in_child((tree / "shared/alices").touch, user=ALICE)
        os.chmod(tree / "shared/alices", 0o666)
    rows: list[tuple[User, str, Callable[[Path], object]]] = [
        (BOB, "EPERM", lambda tree: os.chmod(tree / "shared/alices", 0o777)),
        (BOB, "EPERM", lambda tree: os.utime(tree / "shared/alices", ns=(1, 1))),
        (BOB, "ok", lambda tree: os.utime(tree / "shared/alices")),  # to now: who may write may
        (BOB, "EPERM", lambda tree: os.chown(tree / "shared/alices", BOB.uid, -1)),
        (ALICE, "EPERM", lambda tree: os.chown(tree / "shared/alices", BOB.uid, -1)),
        (ALICE, "EPERM", lambda tree: os.chown(tree / "shared/alices", -1, 64050)),
        (ALICE, "ok", lambda tree: os.chown(tree / "shared/alices", -1, ALICE.gid)),
        (ALICE, "ok", lambda tree: os.chmod(tree / "shared/alices", 0o4755)),
        (ALICE, "ok", lambda tree: os.utime(tree / "shared/alices", ns=(1, 1))),
    ]
    for user, expected, call in rows:
        assert both(open_to_all, user, call) == expected
    top, plain = open_to_all
    assert made(top / "shared/alices") == made(plain / "shared/alices")


@pytest.mark.parametrize("change", ["write", "truncate", "chown"])
def test_set_id_bits_fall_when_a_user_changes_the_file(
    open_to_all: tuple[Path, Path], change: str
) -> None:
    for tree in open_to_all:
        path = tree / "shared/tool"
        in_child(path.write_text, "tool", user=ALICE)
        in_child(os.chmod, path, 0o6777, user=ALICE)

    def do_change(tree: Path) -> None:
        path = tree / "shared/tool"
        if change == "write":
            with path.open("r+") as file:
                file.write("x")
        elif change == "truncate":
            os.truncate(path, 1)
        else:
            os.chown(path, -1, ALICE.gid)

    user = ALICE if change == "chown" else BOB
    assert both(open_to_all, user, do_change) == "ok"
    top, plain = open_to_all
    assert made(top / "shared/tool") == made(plain / "shared/tool")
    assert not os.stat(top / "shared/tool").st_mode & stat.S_ISUID


def test_set_id_bits_fall_whoever_opened_what_a_user_writes_to(
    open_to_all: tuple[Path, Path],
) -> None:
    modes = (0o6777, 0o4755, 0o2775, 0o0755)
    for tree in open_to_all:
        for mode in modes:
            path = tree / f"shared/{mode:o}"
            path.write_bytes(bytes(100))
            os.chmod(path, mode)
            for writer in (None, BOB):
                fd = os.open(path, os.O_WRONLY)
                in_child(lambda fd=fd: os.write(fd, b"x"), user=writer)
                os.close(fd)
                os.rename(path, f"{path}-{writer is None}")
                path = Path(f"{path}-{writer is None}")
    top, plain = open_to_all
    for path in sorted((plain / "shared").iterdir()):
        through_it = made(top / "shared" / path.name)
        assert through_it == made(path), path
        assert through_it == made(top.parent / "source/shared" / path.name), path


@pytest.mark.parametrize("user", [BOB, MEMBER])
def test_a_set_gid_bit_falls_by_the_groups_of_who_writes(
    open_to_all: tuple[Path, Path], user: User
) -> None:
    for tree in open_to_all:
        path = tree / "shared/of-a-group"
        path.write_text("x")
        os.chown(path, -1, 64050)
        os.chmod(path, 0o2666)

    assert (
        both(open_to_all, user, lambda tree: (tree / "shared/of-a-group").write_text("y")) == "ok"
    )
    top, plain = open_to_all
    assert made(top / "shared/of-a-group") == made(plain / "shared/of-a-group")
    assert bool((plain / "shared/of-a-group").stat().st_mode & stat.S_ISGID) is (user is MEMBER)


def test_capabilities_of_a_file_do_not_survive_a_write(open_to_all: tuple[Path, Path]) -> None:
    chown_and_kill = struct.pack("<5I", 0x2000001, 0x21, 0, 0, 0)
    for tree in open_to_all:
        path = tree / "shared/able"
        path.write_text("able")
        for _ in range(2):  # what the kernel has found out does not last
            os.setxattr(path, "security.capability", chown_and_kill)
            assert os.listxattr(path) == ["security.capability"]
            with path.open("r+") as file:
                file.write("x")
            assert os.listxattr(path) == []


def test_access_2_answers_for_the_caller(open_to_all: tuple[Path, Path]) -> None:
    for tree in open_to_all:
        in_child(_check_access, tree, user=ALICE)


def _check_access(tree: Path) -> None:
    assert os.access(tree / "file", os.R_OK)
    assert not os.access(tree / "file", os.W_OK)
    assert not os.access(tree / "of-group", os.R_OK)
    assert os.access(tree / "shared", os.W_OK | os.X_OK)


def test_without_allow_other_nobody_else_gets_in(open_path: Path) -> None:
    (source,) = make_dirs(open_path, "source")
    with mounted(open_path, f"{source}::/") as top:
        for call in (
            lambda: os.stat(top / "file"),
            lambda: os.listdir(top),
            lambda: (top / "file").read_text(),
            lambda: os.chdir(top),
        ):
            assert tried(call, user=ALICE) == "EACCES"
        assert (top / "file").read_text() == "source"


def test_root_acts_as_root(open_to_all: tuple[Path, Path]) -> None:
    top, plain = open_to_all
    for tree in open_to_all:
        make_everything(tree / "shared")
        os.chown(tree / "shared/created", 64001, 64011)
        os.chown(tree / "shared/link", 64001, 64011, follow_symlinks=False)
    for kind in KINDS:
        assert made(top / "shared" / kind) == made(plain / "shared" / kind)

"""The namespace as one tree, seen through the kernel: paths, listings, numbers, masks, errors."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.dents import listing, read_some
from support.live import make_dirs
from support.mounting import mounted
from support.processes import in_child, outcome, tried


class Tree:
    """A root, a library over its `lib`, a nested mount in that, and one behind a made-up path."""

    def __init__(self, place: Path) -> None:
        self.app, self.lib, self.deep, self.far = make_dirs(place, "app", "lib", "deep", "far")
        (self.app / "lib").mkdir()
        (self.app / "lib/masked").write_text("masked")
        (self.app / "dir").mkdir()
        (self.app / "dir/inner").write_text("inner")
        (self.lib / "deep").mkdir()
        (self.lib / "deep/masked").write_text("masked")
        (self.lib / "sub").mkdir()
        self.dirs = (
            f"{self.app}::/",
            f"{self.lib}::/lib",
            f"{self.deep}::/lib/deep",
            f"{self.far}::/opt/made/up",
        )


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture
def top(tree: Tree, tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path, *tree.dirs) as target:
        yield target


# -- path equivalence -----------------------------------------------------------------------------


@pytest.mark.usefixtures("data_way")
def test_every_way_to_a_file_gives_the_same_file(top: Path, tree: Tree) -> None:
    (top / "to-lib").symlink_to("lib")
    (top / "dir/up").symlink_to("../lib/deep")
    root, dir_, lib = (os.open(path, os.O_RDONLY) for path in (top, top / "dir", top / "lib"))
    before_lookup = os.open(top / "lib/sub", os.O_RDONLY)
    ways: list[Callable[[], os.stat_result]] = [
        lambda: os.stat(top / "lib/deep/file"),
        lambda: os.stat("lib/deep/file", dir_fd=root),
        lambda: os.stat("../lib/deep/file", dir_fd=dir_),
        lambda: os.stat("deep/file", dir_fd=lib),
        lambda: os.stat("../deep/file", dir_fd=before_lookup),
        lambda: os.stat("../../lib/./deep/../deep/file", dir_fd=before_lookup),
        lambda: os.stat(top / "to-lib/deep/file"),
        lambda: os.stat(top / "dir/up/file"),
        lambda: os.stat(top / "lib/deep/../../dir/../lib/deep/file"),
        lambda: os.stat(f"/proc/self/fd/{lib}/deep/file"),
    ]
    try:
        assert len({(s.st_dev, s.st_ino) for s in (way() for way in ways)}) == 1
        assert Path(f"/proc/self/fd/{lib}/deep/file").read_text() == "deep"
    finally:
        for fd in (root, dir_, lib, before_lookup):
            os.close(fd)


def test_dot_dot_leads_through_mount_points(top: Path) -> None:
    for path in ("lib/..", "lib/deep/../..", "opt/made/up/../../..", "opt/..", "dir/.."):
        assert os.path.samefile(top / path, top)
    assert os.path.samefile(top / "lib/deep/..", top / "lib")
    assert os.path.samefile(top / "opt/made/up/..", top / "opt/made")
    # Above the target lies the host, as above every mount.
    assert os.path.samefile(top / "..", top.parent)


def test_a_handle_opened_before_sees_what_happens_later(top: Path, tree: Tree) -> None:
    fd = os.open(top / "lib", os.O_RDONLY)
    try:
        (top / "lib/new").write_text("new")
        assert os.stat("new", dir_fd=fd).st_size == 3
        os.rename(top / "lib/new", top / "lib/sub/moved")
        assert outcome(lambda: os.stat("new", dir_fd=fd)) == "ENOENT"
        assert os.stat("sub/moved", dir_fd=fd).st_size == 3
    finally:
        os.close(fd)


def test_what_is_masked_cannot_be_reached(top: Path) -> None:
    for path in ("lib/masked", "lib/deep/masked", "dir/../lib/masked"):
        assert outcome(os.stat, top / path) == "ENOENT"
    names = [name for _, directories, files in os.walk(top) for name in directories + files]
    assert "masked" not in names


# -- listings -------------------------------------------------------------------------------------


def kinds(path: Path) -> dict[bytes, str]:
    """Name to type; fails where a name comes twice."""
    entries = listing(path)
    assert len({entry.name for entry in entries}) == len(entries)
    return {entry.name: entry.kind for entry in entries}


def test_listings_hold_every_mount_point_once(top: Path) -> None:
    dots = {b".": "dir", b"..": "dir"}
    expected = {b"file": "file", b"lib": "dir", b"dir": "dir", b"opt": "dir"}
    assert kinds(top) == dots | expected
    assert kinds(top / "lib") == dots | {b"file": "file", b"deep": "dir", b"sub": "dir"}
    assert kinds(top / "opt") == dots | {b"made": "dir"}
    assert kinds(top / "opt/made") == dots | {b"up": "dir"}


@pytest.mark.usefixtures("data_way")
def test_a_file_as_a_mount_point(tmp_path: Path) -> None:
    (app,) = make_dirs(tmp_path, "app")
    single = tmp_path / "single"
    single.write_text("single")
    with mounted(tmp_path, f"{app}::/", f"{single}::/file", f"{single}::/etc/made-up::ro") as top:
        assert kinds(top)[b"file"] == "file"
        assert kinds(top / "etc")[b"made-up"] == "file"
        assert (top / "file").read_text() == "single"
        assert outcome(lambda: os.unlink(top / "file")) == "EBUSY"


def test_types_and_numbers_of_entries_are_those_of_stat(top: Path, tree: Tree) -> None:
    os.mkfifo(tree.app / "fifo")
    os.symlink("file", tree.app / "link")
    os.mknod(tree.app / "socket", stat.S_IFSOCK | 0o600)
    os.mknod(tree.app / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(tree.app / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 250))
    found = {entry.name: entry for entry in listing(top)}
    types = {"fifo": "fifo", "link": "link", "socket": "sock", "null": "chr", "disk": "blk"}
    for name, kind in (types | {"file": "file", "dir": "dir", "lib": "dir", "opt": "dir"}).items():
        entry = found[name.encode()]
        assert (entry.kind, entry.ino) == (kind, os.lstat(top / name).st_ino)
    assert found[b"."].ino == os.stat(top).st_ino
    below = {entry.name: entry.ino for entry in listing(top / "lib/deep")}
    assert below[b".."] == os.stat(top / "lib").st_ino


def test_a_long_listing_is_complete_while_it_changes(top: Path, tree: Tree) -> None:
    """What is there throughout comes exactly once, whatever comes and goes meanwhile."""
    lasting = {f"lasting-{number:04}".encode() for number in range(1500)}
    for name in lasting:
        (tree.lib / name.decode()).touch()
    fd = os.open(top / "lib", os.O_RDONLY)
    found: list[bytes] = []
    try:
        while piece := read_some(fd, 1024):
            found += [entry.name for entry in piece]
            (top / f"lib/by-guest-{len(found)}").touch()
            (tree.lib / f"by-host-{len(found)}").touch()
            (top / "lib/sub").rename(top / f"lib/sub-{len(found)}")
            (top / f"lib/sub-{len(found)}").rename(top / "lib/sub")
    finally:
        os.close(fd)
    listed = [name for name in found if not name.startswith((b"by-", b"sub"))]
    assert len(listed) == len(set(listed))
    assert lasting | {b"deep", b"file", b".", b".."} == set(listed)


# -- numbers and names ----------------------------------------------------------------------------


def numbers(top: Path) -> dict[str, int]:
    """`st_ino` of everything below TOP."""
    found = {".": os.stat(top).st_ino}
    for directory, subdirectories, files in os.walk(top):
        for name in subdirectories + files:
            path = os.path.join(directory, name)
            found[os.path.relpath(path, top)] = os.lstat(path).st_ino
    return found


def test_numbers_survive_a_remount_and_are_unique_and_small(tree: Tree, tmp_path: Path) -> None:
    os.link(tree.app / "file", tree.app / "dir/second-name")
    seen = []
    for order in (tree.dirs, tree.dirs[::-1]):
        with mounted(tmp_path, *order) as top:
            seen.append(in_child(numbers, top))
    assert seen[0] == seen[1]
    assert seen[0].pop("dir/second-name") == seen[0]["file"]
    assert len(set(seen[0].values())) == len(seen[0])
    assert max(seen[0].values()) < 1 << 53


@pytest.mark.usefixtures("data_way")
def test_hard_links_are_one_file(top: Path, tree: Tree) -> None:
    """The kernel's own caches are shared: no name is ever behind another."""
    os.link(top / "file", top / "dir/linked")
    first, second = top / "file", top / "dir/linked"
    assert os.stat(first).st_ino == os.stat(second).st_ino
    assert os.stat(first).st_nlink == os.stat(second).st_nlink == 2
    first.write_text("longer than before")
    assert second.read_text() == "longer than before"
    assert os.stat(second).st_size == len("longer than before")
    os.chmod(second, 0o600)
    assert stat.S_IMODE(os.stat(first).st_mode) == 0o600
    os.utime(first, ns=(1_000_000_001, 2_000_000_002))
    assert os.stat(second).st_mtime_ns == 2_000_000_002
    with first.open("r+b") as one, second.open("rb") as other:
        one.write(b"LONGER")
        one.flush()
        assert other.read(6) == b"LONGER"
    os.unlink(first)
    assert os.stat(second).st_nlink == 1
    assert second.read_text() == "LONGER than before"


@pytest.mark.usefixtures("data_way")
def test_a_file_in_two_preopens_is_one_file(tmp_path: Path) -> None:
    (source,) = make_dirs(tmp_path, "source")
    with mounted(tmp_path, f"{source}::/one", f"{source}::/two") as top:
        one, two = top / "one/file", top / "two/file"
        assert os.path.samefile(one, two)
        one.write_text("changed by one name")
        assert two.read_text() == "changed by one name"
        with two.open("a") as file:
            file.write("!")
        assert os.stat(one).st_size == len("changed by one name!")


@pytest.mark.parametrize(
    "name",
    [b"\xff\xfe", b"\xc3", b"a b\tc\nd", b"\x01\x7f", b"\\040", b"-", b"x" * 255, "é".encode()],
    ids=["not-utf8", "half", "blanks", "control", "escape", "dash", "longest", "utf8"],
)
def test_names_are_bytes(top: Path, tree: Tree, name: bytes) -> None:
    path, host = os.path.join(os.fsencode(top), name), os.path.join(os.fsencode(tree.app), name)
    os.mkdir(path)
    assert os.path.isdir(host)
    assert name in os.listdir(os.fsencode(top))
    os.rename(path, path[:-1] + b"2")
    os.symlink(name, path)
    assert os.readlink(host) == os.readlink(path) == name
    os.unlink(path)
    os.rmdir(path[:-1] + b"2")


def test_names_that_are_too_long(top: Path) -> None:
    long = "x" * 256
    for call in (
        lambda: os.stat(top / long),
        lambda: os.mkdir(top / long),
        lambda: os.stat(top / "opt" / long),
        lambda: os.symlink("x", top / long),
        lambda: os.rename(top / "file", top / long),
        lambda: os.link(top / "file", top / long),
        lambda: os.open(top / long, os.O_CREAT | os.O_WRONLY),
    ):
        assert outcome(call) == "ENAMETOOLONG"


# -- the error table of section 6 -----------------------------------------------------------------


def test_the_error_table(top: Path) -> None:
    rows: list[tuple[str, Callable[[], object]]] = [
        ("EROFS", lambda: os.mkdir(top / "opt/new")),
        ("EROFS", lambda: (top / "opt/made/new").touch()),
        ("EROFS", lambda: os.symlink("x", top / "opt/new")),
        ("EROFS", lambda: os.chmod(top / "opt", 0o777)),
        ("EBUSY", lambda: os.rmdir(top / "lib/deep")),
        ("EBUSY", lambda: os.rename(top / "lib", top / "moved")),
        ("EBUSY", lambda: os.rename(top / "opt", top / "moved")),
        ("EBUSY", lambda: os.rename(top / "opt/made", top / "opt/moved")),
        ("EBUSY", lambda: os.rename(top / "dir", top / "lib")),
        ("EBUSY", lambda: os.rmdir(top / "opt")),
        ("EEXIST", lambda: os.mkdir(top / "lib")),
        ("EEXIST", lambda: os.mkdir(top / "opt")),
        ("EEXIST", lambda: os.symlink("x", top / "lib/deep")),
        ("EXDEV", lambda: os.rename(top / "file", top / "lib/file2")),
        ("EXDEV", lambda: os.rename(top / "lib/sub", top / "lib/deep/sub")),
        ("EXDEV", lambda: os.link(top / "file", top / "lib/linked")),
        ("EXDEV", lambda: os.link(top / "lib/file", top / "lib/deep/linked")),
        ("ENOTEMPTY", lambda: os.rmdir(top / "dir")),
        ("EISDIR", lambda: os.unlink(top / "dir")),
        ("ENOTDIR", lambda: os.rmdir(top / "file")),
        ("ENOTDIR", lambda: os.stat(top / "file/x")),
    ]
    for expected, call in rows:
        assert tried(call) == expected


def test_made_up_directories(top: Path, tree: Tree) -> None:
    for path in ("opt", "opt/made"):
        assert stat.S_IMODE(os.stat(top / path).st_mode) == 0o555
        assert not (tree.app / path).exists()
    assert os.listdir(tree.app / "dir") == ["inner"]
    # The host gets such a directory later: its content shows, the mount point stays on top.
    (tree.app / "opt/made/up").mkdir(parents=True)
    (tree.app / "opt/made/up/masked").touch()
    (tree.app / "opt/beside").touch()
    in_child(lambda: _wait_for(top / "opt/beside"))
    assert sorted(os.listdir(top / "opt")) == ["beside", "made"]
    assert os.listdir(top / "opt/made/up") == ["file"]
    (top / "opt/new").touch()
    assert (tree.app / "opt/new").exists()


def _wait_for(path: Path) -> None:
    while not path.exists():
        pass


@pytest.mark.usefixtures("data_way")
def test_moving_between_mounts_as_mv_does(top: Path, tree: Tree) -> None:
    """EXDEV makes `mv` and its like copy."""
    shutil.move(top / "dir", top / "lib/deep/dir")
    assert (tree.deep / "dir/inner").read_text() == "inner"
    assert not (tree.app / "dir").exists()

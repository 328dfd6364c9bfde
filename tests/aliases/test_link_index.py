"""The index of what is shown read-only: right whenever the host changes what it is about."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aliases.private_mounts import bind, in_private_mounts, mount_overlay, mount_tmpfs
from overlayd.host import fs, links
from overlayd.host.links import LinkIndex, ShownTree
from overlayd.table.mount_tree import Branch, build_table
from overlayd.table.preopen import parse_preopen
from support.processes import NOBODY, in_child


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A tree of three levels, and beside it a directory that the index knows nothing of."""
    for name in ("tree/a/a1", "tree/a/a2", "tree/b/b1", "beside"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "beside/file").write_text("content")
    return tmp_path


def index_of(*trees: Path, branch: Branch | None = None, **options: object) -> LinkIndex:
    shown = [ShownTree(fs.open_ambient(str(tree)), branch) for tree in trees]
    return LinkIndex(shown, None, **options)  # type: ignore[arg-type]


def holds(index: LinkIndex, path: Path, has_stayed: bool = False) -> bool:
    status = path.stat()
    return index.holds(status.st_dev, status.st_ino, lambda: has_stayed)


def settle(top: Path) -> None:
    """Let the tree look as if nobody had touched it for long: its listings are then kept."""
    time.sleep(0.02)


@pytest.fixture(autouse=True)
def settled_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Listings are trusted after 10 ms, on file systems that keep times in nanoseconds."""
    monkeypatch.setattr(links, "_SETTLED_NS", 10_000_000)


def test_links_made_and_removed_after_a_walk(top: Path) -> None:
    index = index_of(top / "tree")
    assert not holds(index, top / "beside/file")
    os.link(top / "beside/file", top / "tree/b/b1/late")
    assert holds(index, top / "beside/file")
    os.unlink(top / "tree/b/b1/late")
    assert not holds(index, top / "beside/file")


def test_the_same_once_listings_are_kept(top: Path) -> None:
    index = index_of(top / "tree")
    settle(top)
    assert not holds(index, top / "beside/file")
    os.link(top / "beside/file", top / "tree/a/a2/late")
    assert holds(index, top / "beside/file")
    settle(top)
    assert holds(index, top / "beside/file")
    os.rename(top / "tree/a/a2/late", top / "beside/moved")
    assert not holds(index, top / "beside/file")


def test_what_has_not_changed_is_not_listed_again(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_of(top / "tree")
    settle(top)
    assert not holds(index, top / "beside/file")
    listed = _listings(monkeypatch)
    assert not holds(index, top / "beside/file")
    assert listed == []
    (top / "tree/a/a1/new").write_text("new")
    settle(top)
    assert not holds(index, top / "beside/file", has_stayed=True)
    assert len(listed) == 1


def _listings(monkeypatch: pytest.MonkeyPatch) -> list[fs.Fd]:
    listed = []
    entries = LinkIndex._entries

    def noting(index: LinkIndex, fd: fs.Fd, *rest: object) -> Iterator[object]:
        listed.append(fd)
        return entries(index, fd, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(LinkIndex, "_entries", noting)
    return listed


def test_a_directory_that_is_moved_in_with_old_times(top: Path) -> None:
    """Its modification time can be set to anything; the status change time cannot."""
    (top / "beside/dir").mkdir()
    index = index_of(top / "tree")
    settle(top)
    os.link(top / "beside/file", top / "beside/dir/alias")
    long_ago = (1_000_000_000, 1_000_000_000)
    os.utime(top / "beside/dir", long_ago)
    assert not holds(index, top / "beside/file")
    times = (top / "tree/a").stat()
    os.rename(top / "beside/dir", top / "tree/a/dir")
    os.utime(top / "tree/a", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert holds(index, top / "beside/file")


def test_a_directory_that_takes_anothers_place(top: Path) -> None:
    (top / "beside/a1").mkdir()
    os.link(top / "beside/file", top / "beside/a1/alias")
    index = index_of(top / "tree")
    settle(top)
    assert not holds(index, top / "beside/file")
    one, other = (fs.open_ambient(str(top / name)) for name in ("tree/a", "beside"))
    fs.rename(one, b"a1", other, b"a1", fs.RENAME_EXCHANGE)
    assert holds(index, top / "beside/file")


# -- while a walk is under way ------------------------------------------------------------------


def when_it_comes_to(
    monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], object], times: int = 1
) -> list[bool]:
    """Call ACT just before the walk enters the directory NAME, the first TIMES times."""
    called: list[bool] = []
    enter = LinkIndex._enter

    def slow(index: LinkIndex, directory: fs.Fd, child: bytes, *rest: object) -> fs.Fd | None:
        if child == name.encode() and len(called) < times:
            called.append(True)
            act()
        return enter(index, directory, child, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(LinkIndex, "_enter", slow)
    return called


def later_of(tree: Path) -> tuple[Path, Path]:
    """The two directories at the top of TREE in the order in which a walk comes to them."""
    with os.scandir(tree) as entries:
        first, second = (Path(entry.path) for entry in entries)
    return first, second


@pytest.mark.parametrize("is_known", [False, True], ids=["first walk", "later walk"])
def test_a_link_that_moves_to_where_the_walk_was_already(
    is_known: bool, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = later_of(top / "tree")
    os.link(top / "beside/file", second / "alias")
    index = index_of(top / "tree")
    if is_known:
        assert holds(index, top / "beside/file")
        os.unlink(second / "alias")
        assert not holds(index, top / "beside/file")
        os.link(top / "beside/file", second / "alias")
    called = when_it_comes_to(
        monkeypatch, second.name, lambda: os.rename(second / "alias", first / "alias")
    )
    assert holds(index, top / "beside/file")
    assert called


@pytest.mark.parametrize("is_known", [False, True], ids=["first walk", "later walk"])
def test_a_directory_that_moves_to_where_the_walk_was_already(
    is_known: bool, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status of the file tells nothing of this: its own names stay what they were."""
    first, second = later_of(top / "tree")
    (top / "beside/dir").mkdir()
    os.link(top / "beside/file", top / "beside/dir/alias")
    index = index_of(top / "tree")
    if is_known:
        assert not holds(index, top / "beside/file")
    os.rename(top / "beside/dir", second / "dir")
    called = when_it_comes_to(
        monkeypatch, second.name, lambda: os.rename(second / "dir", first / "dir")
    )
    assert holds(index, top / "beside/file", has_stayed=True)
    assert called


def test_two_directories_that_swap_while_the_walk_is_between_them(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = later_of(top / "tree")
    os.link(top / "beside/file", second / "alias")
    tree = fs.open_ambient(str(top / "tree"))
    index = index_of(top / "tree")
    names = (os.fsencode(first.name), os.fsencode(second.name))
    called = when_it_comes_to(
        monkeypatch,
        second.name,
        lambda: fs.rename(tree, names[0], tree, names[1], fs.RENAME_EXCHANGE),
    )
    assert holds(index, top / "beside/file", has_stayed=True)
    assert called


def test_a_link_made_between_the_question_and_the_end_of_the_walk_of_another(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks while a walk is under way is not answered by that walk."""
    first, second = later_of(top / "tree")
    entered, go_on = threading.Event(), threading.Event()

    def wait() -> None:
        entered.set()
        go_on.wait(10)

    when_it_comes_to(monkeypatch, second.name, wait)
    index = index_of(top / "tree")
    (top / "beside/other").write_text("other")
    slow = threading.Thread(target=lambda: holds(index, top / "beside/other", has_stayed=True))
    slow.start()
    assert entered.wait(10)
    os.link(top / "beside/file", first / "alias")
    answers: list[bool] = []
    asking = threading.Thread(
        target=lambda: answers.append(holds(index, top / "beside/file", has_stayed=True))
    )
    asking.start()
    time.sleep(0.05)
    go_on.set()
    for thread in (slow, asking):
        thread.join(10)
    assert answers == [True]


def test_a_thread_that_never_stops_moving_a_link(top: Path) -> None:
    """It is in the tree at every moment: no answer may say that it is not."""
    for number in range(100):
        (top / f"tree/b/b1/{number}").mkdir()
    places = [top / "tree/a/a1/alias", top / "tree/b/b1/7/alias", top / "tree/b/b1/93/alias"]
    os.link(top / "beside/file", places[-1])
    stop = threading.Event()

    def move() -> None:
        at = -1
        while not stop.is_set():
            os.rename(places[at], places[(at + 1) % 3])
            at = (at + 1) % 3

    mover = threading.Thread(target=move)
    mover.start()
    index, answers = index_of(top / "tree"), []
    try:
        for _ in range(30):
            try:
                answers.append(holds(index, top / "beside/file"))
            except OSError as error:
                answers.append("changed all the time" in str(error))
    finally:
        stop.set()
        mover.join()
    assert answers == [True] * 30


def test_a_tree_that_never_comes_to_rest_has_no_answer(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = iter(range(10_000))
    when_it_comes_to(
        monkeypatch, "b", lambda: (top / f"tree/a/{next(numbers)}").mkdir(), times=10_000
    )
    with pytest.raises(OSError, match="changed all the time"):
        holds(index_of(top / "tree"), top / "beside/file", has_stayed=True)


def test_files_that_come_and_go_do_not_matter_to_a_file_that_stays(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = iter(range(10_000))
    when_it_comes_to(
        monkeypatch, "b", lambda: (top / f"tree/a/{next(numbers)}").touch(), times=10_000
    )
    index = index_of(top / "tree")
    assert not holds(index, top / "beside/file", has_stayed=True)
    with pytest.raises(OSError, match="changed all the time"):
        holds(index, top / "beside/file", has_stayed=False)


# -- what belongs to the tree -------------------------------------------------------------------


def test_masked_parts_are_not_in_it(top: Path) -> None:
    table = build_table([parse_preopen(f"{top}/tree::/::ro"), parse_preopen(f"{top}::/a/a1")])
    index = index_of(top / "tree", branch=table.root)
    os.link(top / "beside/file", top / "tree/a/a1/alias")
    assert not holds(index, top / "beside/file")
    os.link(top / "beside/file", top / "tree/a/a2/alias")
    assert holds(index, top / "beside/file")


def test_a_masked_file_is_not_in_it(top: Path) -> None:
    (top / "tree/a/masked").write_text("masked")
    preopens = [parse_preopen(f"{top}/tree::/::ro"), parse_preopen(f"{top}/tree::/a/masked")]
    index = index_of(top / "tree", branch=build_table(preopens).root)
    assert not holds(index, top / "tree/a/masked")


def test_several_trees(top: Path) -> None:
    index = index_of(top / "tree/a", top / "tree/b")
    os.link(top / "beside/file", top / "tree/b/alias")
    assert holds(index, top / "beside/file")
    assert len(index) == 1


def test_what_cannot_be_read_has_no_answer(open_path: Path) -> None:
    (open_path / "tree/closed").mkdir(parents=True)
    (open_path / "file").write_text("content")
    (open_path / "tree/closed").chmod(0o700)

    def ask() -> str:
        try:
            return str(holds(index_of(open_path / "tree"), open_path / "file", has_stayed=True))
        except OSError as error:
            return error.strerror or ""

    assert in_child(ask) == "False"
    assert in_child(ask, user=NOBODY) == "Permission denied"


def test_another_file_system_is_in_it_and_ours_is_not(open_path: Path) -> None:
    in_private_mounts(lambda: _cross_mounts(open_path))


def _cross_mounts(place: Path) -> None:
    (place / "tree").mkdir()
    mount_tmpfs(place / "tree/mounted")
    (place / "tree/mounted/deep").mkdir()
    (place / "tree/mounted/deep/file").write_text("content")
    bind(place / "tree/mounted/deep", place / "bound")
    shown = [ShownTree(fs.open_ambient(str(place / "tree")), None)]
    assert holds(LinkIndex(shown, None), place / "bound/file", has_stayed=True)
    own = (place / "bound").stat().st_dev
    assert not holds(LinkIndex(shown, own), place / "bound/file", has_stayed=True)


@pytest.mark.parametrize("options", ["", ",xino=off"])
def test_overlayfs_calls_files_otherwise_in_listings(options: str, open_path: Path) -> None:
    in_private_mounts(lambda: _index_overlay(open_path, options))


def _index_overlay(place: Path, options: str) -> None:
    """Lower and upper on two file systems: a file has another device number than its directory."""
    for name in ("one", "two"):
        mount_tmpfs(place / name)
    for name in ("one/lower/d", "two/upper", "two/work"):
        (place / name).mkdir(parents=True)
    (place / "one/lower/d/file").write_text("content")
    (place / "one/lower/d/other").write_text("content")
    upper, work = place / "two/upper", place / "two/work"
    mount_overlay(place / "merged", place / "one/lower", upper, work, options)
    index = index_of(place / "merged", lists_truly=lambda _: False)
    assert holds(index, place / "merged/d/file", has_stayed=True)
    (place / "two/elsewhere").write_text("content")
    assert not holds(index, place / "two/elsewhere", has_stayed=True)

"""What the kernel is told when the host changes something, and what not when the guest did.

A real core on real directories and a real inotify; only the kernel is not there.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
import trio
from pyfuse3 import FUSEError

from overlayd.host.watch import OVERFLOW, HostWatch
from overlayd.kernel import watching
from overlayd.kernel.cache import LASTING, SHORT, UNWATCHABLE, CachePolicy
from overlayd.kernel.changes import HostChanges
from overlayd.kernel.notifications import Notifier
from overlayd.kernel.operations import Operations
from support.core_guest import make_overlay
from support.fake_core import CONTEXT, run
from support.planting import plant

FIELDS = ("mode", "uid", "gid", "size", "atime", "mtime")

Told = tuple[str, Any]


def told(message: bytes) -> Told:
    """A notification, read as the kernel does."""
    size, code, unique = struct.unpack_from("=IiQ", message)
    assert (size, unique) == (len(message), 0)
    if code == 2:
        number, offset, length = struct.unpack_from("=Qqq", message, 16)
        assert length == 0
        return ("attributes" if offset < 0 else "all", number)
    assert code == 3
    parent, length, flags = struct.unpack_from("=QII", message, 16)
    name = message[32:]
    assert len(name) == length + 1 and name.endswith(b"\0")
    return ("expired" if flags == 1 else "dropped", (parent, name[:-1]))


class Mount:
    """The adapter over real directories, watched, as a guest and the host use it."""

    def __init__(self, *dirs: str) -> None:
        overlay = make_overlay(*dirs)
        self.space = overlay.namespace
        self.operations = Operations(overlay, CachePolicy.parse("coherent"), "posix")
        coherence = self.operations.coherence
        self.watcher = coherence.watcher
        self.changes = HostChanges(self.space, coherence, Notifier(None))
        self.host = HostWatch()
        self.watcher.start(self.host)

    def entry(self, path: str) -> pyfuse3.EntryAttributes:
        """What the last lookup on the way to PATH answers, attributes asked for again."""
        entry = run(self.operations.getattr, 1, CONTEXT)
        for name in os.fsencode(path).split(b"/"):
            if name:
                run(self.operations.getattr, entry.st_ino, CONTEXT)
                entry = run(self.operations.lookup, entry.st_ino, name, CONTEXT)
        return entry

    def number(self, path: str) -> int:
        return int(self.entry(path).st_ino)

    def told(self) -> set[Told]:
        """What the kernel is told about all that happened since."""
        messages = run(self.changes.heed, self.host.take())
        return {told(message) for message in messages}

    def forgets_everything(self) -> set[Told]:
        """What the kernel is told when it is to ask for all again."""
        said: list[bytes] = []
        self.changes._notifier = Notifier(0, lambda _, message: said.append(message))
        run(self.changes.forget_everything)
        return {told(message) for message in said}

    def make(self, name: bytes, data: bytes = b"x", parent: int = 1) -> int:
        info, entry = run(self.operations.create, parent, name, 0o644, os.O_WRONLY, CONTEXT)
        run(self.operations.write, info.fh, 0, data)
        run(self.operations.release, info.fh)
        return int(entry.st_ino)

    def chmod(self, number: int, mode: int) -> None:
        attr = pyfuse3.EntryAttributes()
        attr.st_mode = pyfuse3.ModeT(mode)
        fields = SimpleNamespace(**{f"update_{name}": name == "mode" for name in FIELDS})
        run(self.operations.setattr, number, attr, fields, None, CONTEXT)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return plant(tmp_path / "source", "f=F", "g=G", "sub/x=X", "sub/y=Y")


@pytest.fixture
def mount(place: Path) -> Iterator[Mount]:
    mount = Mount(f"{place}::/")
    yield mount
    mount.watcher.stop()


def test_what_was_watched_is_let_go_of_at_the_end(place: Path) -> None:
    """Or the host could not unmount it yet when it hears that the daemon has gone."""
    mount = Mount(f"{place}::/")
    mount.watcher.stop()

    async def serve() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.changes.run)
            mount.changes.adjust()
            while mount.watcher.host is None:
                await trio.sleep(0.001)
            assert "anon_inode:inotify" in {str(fd.readlink()) for fd in held() if fd.is_symlink()}
            nursery.cancel_scope.cancel()

    def held() -> list[Path]:
        return list(Path("/proc/self/fd").iterdir())

    before = held()
    trio.run(serve)
    assert mount.watcher.host is None
    assert len(held()) <= len(before)


# -- how long answers hold ------------------------------------------------------------------------


def timeouts(entry: pyfuse3.EntryAttributes) -> tuple[float, float]:
    return entry.entry_timeout, entry.attr_timeout


def test_what_lies_in_a_watched_directory_lasts(mount: Mount) -> None:
    assert timeouts(mount.entry("f")) == (LASTING, LASTING)
    assert timeouts(mount.entry("absent"))[0] == LASTING
    assert mount.entry("absent").st_ino == 0


def test_a_directory_lasts_once_it_is_watched_itself(mount: Mount) -> None:
    first = run(mount.operations.lookup, 1, b"sub", CONTEXT)
    assert timeouts(first) == (LASTING, SHORT)
    assert run(mount.operations.getattr, first.st_ino, CONTEXT).attr_timeout == LASTING
    assert timeouts(run(mount.operations.lookup, 1, b"sub", CONTEXT)) == (LASTING, LASTING)


def test_a_file_with_several_names_is_watched_itself(mount: Mount, place: Path) -> None:
    os.link(place / "f", place.parent / "elsewhere")
    assert timeouts(mount.entry("f")) == (LASTING, SHORT)
    assert timeouts(mount.entry("f")) == (LASTING, LASTING)
    (place.parent / "elsewhere").write_text("changed")
    assert mount.told() == {("all", mount.number("f"))}


def test_several_names_in_one_mount_last_and_in_two_do_not(tmp_path: Path) -> None:
    a, b = plant(tmp_path / "a", "f=F"), plant(tmp_path / "b", "x=X")
    os.link(a / "f", a / "g")
    os.link(a / "f", b / "f")
    mount = Mount(f"{a}::/", f"{b}::/b")
    for name in ("f", "g", "f", "g"):
        entry = mount.entry(name)
    assert timeouts(entry) == (LASTING, LASTING)
    assert timeouts(mount.entry("b/f")) == (0, 0)
    mount.watcher.stop()


def test_sources_that_overlap_are_asked_each_time(place: Path) -> None:
    mount = Mount(f"{place}::/a", f"{place}/sub::/b")
    assert timeouts(mount.entry("a/f")) == (0, 0)
    with pytest.raises(FUSEError):
        mount.entry("b/absent")
    assert len(mount.host) == 0


def test_what_the_table_makes_up_lasts_unless_the_host_may_come_to_have_it(place: Path) -> None:
    alone = Mount(f"{place}::/made/up")
    assert timeouts(alone.entry("made")) == (LASTING, LASTING)
    assert alone.entry("made/absent").entry_timeout == LASTING
    other = plant(place.parent / "other", "f=F")
    below = Mount(f"{place}::/", f"{other}::/made/up")
    assert below.entry("made").attr_timeout == SHORT
    assert below.entry("made/absent").entry_timeout == SHORT
    for mount in (alone, below):
        mount.watcher.stop()


def test_a_rebased_link_lasts_only_where_it_says_what_is_stored(mount: Mount, place: Path) -> None:
    (place / "plain").symlink_to("f")
    (place / "absolute").symlink_to("/f")
    assert mount.entry("plain").attr_timeout == LASTING
    assert mount.entry("absolute").attr_timeout == SHORT


def test_answers_from_a_thread_hold_for_a_moment(mount: Mount) -> None:
    with mount.space.patience():
        assert timeouts(mount.entry("f")) == (SHORT, SHORT)
        assert mount.entry("absent").entry_timeout == SHORT
    assert len(mount.host) == 0


def test_nothing_lasts_before_anything_is_watched(mount: Mount) -> None:
    mount.watcher.stop()
    assert timeouts(mount.entry("f")) == (SHORT, SHORT)


def test_data_is_kept_where_attributes_last(mount: Mount, place: Path) -> None:
    def keeps(path: str) -> bool:
        info = run(mount.operations.open, mount.number(path), os.O_RDONLY, CONTEXT)
        return bool(info.keep_cache)

    assert keeps("f")
    os.link(place / "g", place.parent / "elsewhere")
    assert not keeps("g")
    assert keeps("g")
    mount.operations.configure(CachePolicy.parse("10"), "posix")
    assert not keeps("f")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EMFILE])
def test_without_a_watch_it_is_a_second(
    mount: Mount, number: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(number, "")

    monkeypatch.setattr(mount.host, "add", refuse)
    for _ in range(2):
        assert timeouts(mount.entry("f")) == (UNWATCHABLE, UNWATCHABLE)
        assert mount.entry("sub/absent").entry_timeout == UNWATCHABLE
    assert len(caplog.records) == 1
    assert "sysctl" in caplog.text


def test_watches_go_with_what_the_kernel_forgets(mount: Mount, place: Path) -> None:
    sub = mount.number("sub")
    mount.entry("sub/x")
    assert len(mount.host) == 2
    node = mount.space.nodes.get(sub)
    run(mount.operations.forget, [(sub, node.lookups)])
    assert len(mount.host) == 1
    mount.told()
    assert len(mount.host._inotify.watches) == 1
    (place / "sub/x").unlink()
    (place / "sub/y").unlink()
    mount.entry("sub/absent")
    assert len(mount.host) == 2
    (place / "sub").rmdir()
    while mount.space.cache.shrink():  # a descriptor keeps what was removed
        pass
    mount.told()
    assert len(mount.host) == 1


# -- what the host does ---------------------------------------------------------------------------


def replace(place: Path) -> None:
    (place.parent / "new").write_text("N")
    os.rename(place.parent / "new", place / "f")


HOST: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "write": (lambda p: (p / "f").write_text("much more"), {"all f"}),
    "append": (lambda p: os.truncate(p / "f", 9), {"all f"}),
    "chmod": (lambda p: (p / "f").chmod(0o600), {"attributes f"}),
    "touch": (lambda p: os.utime(p / "f"), {"attributes f"}),
    "create": (lambda p: (p / "absent").touch(), {"expired absent", "all /"}),
    "unlink": (lambda p: (p / "f").unlink(), {"expired f", "all /"}),
    "rename": (
        lambda p: os.rename(p / "f", p / "absent"),
        {"expired f", "expired absent", "all /", "all f"},
    ),
    "rename over": (
        lambda p: os.rename(p / "f", p / "g"),
        {"expired f", "expired g", "all /", "all f"},
    ),
    "rename in": (replace, {"expired f", "all /"}),
    "rename out": (lambda p: os.rename(p / "f", p.parent / "f"), {"expired f", "all /"}),
    "link": (
        lambda p: os.link(p / "f", p / "absent"),
        {"expired absent", "all /", "all f"},
    ),
    "mkdir": (lambda p: (p / "absent").mkdir(), {"expired absent", "all /"}),
    "chmod of a directory": (lambda p: (p / "sub").chmod(0o700), {"attributes sub"}),
    "deeper": (lambda p: (p / "sub/z").touch(), {"expired sub/z", "all sub"}),
    "a directory moves": (
        lambda p: os.rename(p / "sub", p / "absent"),
        {"expired sub", "expired absent", "all /", "attributes sub"},
    ),
}


@pytest.mark.parametrize("name", HOST)
def test_what_the_host_does_is_told(mount: Mount, place: Path, name: str) -> None:
    change, expected = HOST[name]
    numbers = {path: mount.number(path) for path in ("f", "g", "sub", "sub/x")}
    numbers["/"] = 1
    for absent in ("absent", "sub/z"):
        mount.entry(absent)

    def resolved(words: str) -> Told:
        kind, path = words.split(" ", 1)
        if kind in ("all", "attributes"):
            return kind, numbers[path]
        above, _, last = path.rpartition("/")
        return kind, (numbers[above or "/"], last.encode())

    assert mount.told() == set()
    change(place)
    assert mount.told() == {resolved(words) for words in expected}


def test_an_open_file_that_lost_its_name(mount: Mount, place: Path) -> None:
    number = mount.number("f")
    run(mount.operations.open, number, os.O_RDONLY, CONTEXT)
    os.rename(place / "f", place.parent / "f")
    assert ("attributes", number) in mount.told()
    # Where it lies now nothing is watched.
    assert run(mount.operations.getattr, number, CONTEXT).attr_timeout == SHORT
    os.rename(place.parent / "f", place / "f")
    mount.told()
    assert timeouts(mount.entry("f")) == (LASTING, LASTING)


def test_an_open_file_that_lost_its_name_before_anything_was_watched(
    mount: Mount, place: Path
) -> None:
    mount.watcher.stop()
    number = mount.number("f")
    run(mount.operations.open, number, os.O_RDONLY, CONTEXT)
    os.rename(place / "f", place.parent / "f")
    mount.host = HostWatch()
    mount.watcher.start(mount.host)
    assert mount.entry("g").attr_timeout == LASTING
    assert run(mount.operations.getattr, number, CONTEXT).attr_timeout == SHORT


def test_behind_a_mount_point_nothing_matters(tmp_path: Path) -> None:
    outer, inner = plant(tmp_path / "outer", "m/f=F"), plant(tmp_path / "inner", "f=G")
    mount = Mount(f"{outer}::/", f"{inner}::/m")
    number = mount.number("m/f")
    (outer / "m/f").write_text("unseen")
    assert mount.told() == set()
    os.rename(outer / "m", outer / "n")
    assert mount.told() == {("expired", (1, b"n")), ("all", 1)}
    (inner / "f").write_text("seen")
    assert mount.told() == {("all", number)}
    mount.watcher.stop()


def test_another_directory_comes_below_a_mount_point(tmp_path: Path) -> None:
    """The names in it stay those of one inode for the kernel: what it knows there must all go."""
    outer, inner = plant(tmp_path / "outer", "d/f=F"), plant(tmp_path / "inner", "x=X")
    mount = Mount(f"{outer}::/", f"{inner}::/d/m")
    directory = mount.number("d")
    mount.entry("d/f")
    os.rename(outer / "d", tmp_path / "away")
    assert {
        ("dropped", (1, b"d")),
        ("expired", (directory, b"f")),
        ("all", directory),
    } <= mount.told()
    with suppress(FUSEError):
        mount.entry("d/f")
    (outer / "d").mkdir()
    (outer / "d/f").write_text("other")
    mount.told()
    assert mount.entry("d/f").st_size == len("other")
    (outer / "d/f").write_text("another")
    assert mount.told() == {("all", mount.number("d/f"))}
    mount.watcher.stop()


# -- what the guest does --------------------------------------------------------------------------


def rename(mount: Mount, old: bytes, new: bytes, flags: int = 0) -> object:
    return run(mount.operations.rename, 1, old, 1, new, flags, CONTEXT)


GUEST: dict[str, Callable[[Mount], object]] = {
    "create, write, close": lambda m: m.make(b"new"),
    "and remove": lambda m: (m.make(b"new"), run(m.operations.unlink, 1, b"new", CONTEXT)),
    "and remove and again": lambda m: (
        m.make(b"new"),
        run(m.operations.unlink, 1, b"new", CONTEXT),
        m.make(b"new"),
    ),
    "mkdir": lambda m: run(m.operations.mkdir, 1, b"new", 0o755, CONTEXT),
    "mkdir, rmdir": lambda m: (
        run(m.operations.mkdir, 1, b"new", 0o755, CONTEXT),
        run(m.operations.rmdir, 1, b"new", CONTEXT),
    ),
    "symlink": lambda m: run(m.operations.symlink, 1, b"new", b"f", CONTEXT),
    "mknod": lambda m: run(m.operations.mknod, 1, b"new", stat.S_IFIFO | 0o600, 0, CONTEXT),
    "link": lambda m: run(m.operations.link, m.number("f"), 1, b"new", CONTEXT),
    "unlink": lambda m: run(m.operations.unlink, 1, b"f", CONTEXT),
    "rename": lambda m: rename(m, b"f", b"new"),
    "rename over": lambda m: rename(m, b"f", b"g"),
    "exchange": lambda m: rename(m, b"f", b"g", 2),
    "chmod": lambda m: m.chmod(m.number("f"), 0o600),
    "rename of a directory": lambda m: rename(m, b"sub", b"new"),
    "write a new file and rename it": lambda m: (m.make(b"new"), rename(m, b"new", b"f")),
}


@pytest.mark.parametrize("name", GUEST)
def test_what_the_guest_does_is_not(mount: Mount, name: str) -> None:
    for path in ("f", "g", "sub", "sub/x", "new"):
        mount.entry(path)
    GUEST[name](mount)
    assert mount.told() == set()
    assert mount.told() == set()


def test_the_host_is_told_of_beside_the_guest(mount: Mount, place: Path) -> None:
    number = mount.make(b"new")
    (place / "other").touch()
    assert mount.told() == {("expired", (1, b"other")), ("all", 1)}
    mount.entry("new")
    mount.chmod(number, 0o600)
    (place / "new").chmod(0o640)
    assert mount.told() == {("attributes", number)}
    mount.entry("new")
    mount.chmod(number, 0o600)
    (place / "new").write_text("longer")
    assert mount.told() == {("all", number)}


def test_a_write_does_not_hide_what_else_the_host_changed(mount: Mount, place: Path) -> None:
    """After writing, the kernel asks for times and size itself, and for nothing else."""
    number = mount.make(b"new")
    (place / "new").chmod(0o600)
    assert mount.told() == {("all", number)}


def test_a_rename_does_not_hide_what_the_host_wrote(mount: Mount, place: Path) -> None:
    number = mount.number("f")
    rename(mount, b"f", b"new")
    (place / "new").write_text("longer")
    assert mount.told() == {("all", number)}


def remove(path: Path) -> bool:
    path.unlink()
    return True


UNDONE: dict[str, Callable[[Mount, Path], object]] = {
    "removed": lambda m, p: (m.make(b"new"), remove(p / "new")),
    "moved away": lambda m, p: (m.make(b"new"), (p / "new").rename(p.parent / "away")),
    "replaced": lambda m, p: (
        m.make(b"new"),
        remove(p / "new"),
        (p / "f").rename(p / "new"),
    ),
    "made again": lambda m, p: (
        run(m.operations.unlink, 1, b"f", CONTEXT),
        (p / "f").write_text("new"),
    ),
    "renamed over": lambda m, p: (rename(m, b"f", b"new"), (p / "g").rename(p / "new")),
    "there, looked up while it was not": lambda m, p: (
        m.make(b"new"),
        (p / "new").rename(p.parent / "away"),
        m.entry("new"),
        (p.parent / "away").rename(p / "new"),
    ),
}


@pytest.mark.parametrize("name", UNDONE)
def test_what_the_host_makes_of_the_guests_names_is_told(
    mount: Mount, place: Path, name: str
) -> None:
    for path in ("f", "g"):
        mount.entry(path)
    UNDONE[name](mount, place)
    wanted = b"f" if name == "made again" else b"new"
    said = mount.told()
    assert ("expired", (1, wanted)) in said
    assert ("all", 1) in said


def test_a_guest_that_looked_since_knows(mount: Mount, place: Path) -> None:
    """A name that was made here, taken by the host and looked up: the kernel knows all of it."""
    mount.make(b"new")
    (place / "new").unlink()
    mount.entry("new")
    run(mount.operations.getattr, 1, CONTEXT)
    assert mount.told() == set()


# -- the queue ------------------------------------------------------------------------------------


def test_a_full_queue_says_so(mount: Mount, place: Path) -> None:
    mount.entry("f")
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:  # an administrator's own setting: the loop would take seconds
        pytest.fail(f"fs.inotify.max_queued_events is {limit}: too many to fill here")
    names = [place / "f", place / "g"]
    for count in range(limit + 10):
        names[count % 2].chmod(0o600)
    assert (OVERFLOW, b"") in mount.host.take()


def test_what_the_kernel_forgets_while_all_is_watched_anew_stays_forgotten(place: Path) -> None:
    count = 2 * watching._SLICE
    plant(place, *(f"dir{number}/" for number in range(count)))
    mount = Mount(f"{place}::/")
    for number in range(count):
        mount.entry(f"dir{number}/absent")
    last = mount.space.nodes.get(mount.number(f"dir{count - 1}"))

    async def renew_and_forget() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(mount.watcher.renew)
            await trio.sleep(0)
            await mount.operations.forget([(last.number, last.lookups)])

    before = len(mount.watcher)
    trio.run(renew_and_forget)
    assert len(mount.watcher) == len(mount.host) == before - 1
    assert not mount.watcher.may_rely_on(last)
    mount.watcher.stop()


def test_forgetting_everything_reaches_absent_names(mount: Mount, place: Path) -> None:
    for path in ("f", "sub/x", "absent"):
        mount.entry(path)
    (place / "absent").touch()
    sub = mount.number("sub")
    assert {
        *(("expired", (1, name)) for name in (b"f", b"sub", b"absent")),
        *(("expired", (sub, b"x")), ("all", sub), ("all", 1), ("all", mount.number("f"))),
    } <= mount.forgets_everything()


def test_what_lies_on_a_slow_source_is_left_out(place: Path) -> None:
    """The kernel would wait for whatever is asked for there, and all others with it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as other:
        plant(Path(other), "sub/x=X")
        mount = Mount(f"{place}::/", f"{other}::/slow")
        slow, sub = mount.number("slow"), mount.number("slow/sub")
        mount.entry("slow/sub/x")
        mount.space._devices.blocking.add(os.stat(other).st_dev)
        said = mount.forgets_everything()
        mount.watcher.stop()
    assert ("expired", (1, b"slow")) in said and ("all", 1) in said
    of_slow = {("all", number) for number in (slow, sub)}
    assert not said & (of_slow | {("expired", (slow, b"sub")), ("expired", (sub, b"x"))})

"""The adapter against a fake core: errors, threads, what is copied and what is cached."""

from __future__ import annotations

import errno
import inspect
import logging
import os
import threading
import time
from types import SimpleNamespace
from typing import Any

import pyfuse3
import pytest
from pyfuse3 import FUSEError

from overlayd.core.data import Created
from overlayd.core.listings import Entry
from overlayd.core.types import Changes, WouldBlock
from overlayd.kernel import throttled
from overlayd.kernel.operations import Operations
from support.fake_core import ATTRS, CONTEXT, DEVICE, STATUS, FakeCore, run

TIMES = {"st_atime_ns": 5, "st_mtime_ns": 6}

NOTHING = SimpleNamespace(
    **{
        f"update_{name}": False
        for name in ("mode", "uid", "gid", "size", "atime", "mtime", "ctime")
    }
)

REQUESTS: dict[str, tuple[Any, ...]] = {
    "lookup": (1, b"x", CONTEXT),
    "getattr": (1, CONTEXT),
    "setattr": (1, pyfuse3.EntryAttributes(), NOTHING, None, CONTEXT),
    "readlink": (1, CONTEXT),
    "mknod": (1, b"x", 0o644, 0, CONTEXT),
    "mkdir": (1, b"x", 0o755, CONTEXT),
    "unlink": (1, b"x", CONTEXT),
    "rmdir": (1, b"x", CONTEXT),
    "symlink": (1, b"x", b"t", CONTEXT),
    "rename": (1, b"x", 1, b"y", 0, CONTEXT),
    "link": (2, 1, b"x", CONTEXT),
    "open": (1, os.O_RDONLY, CONTEXT),
    "read": (3, 0, 10),
    "write": (3, 0, b"data"),
    "flush": (3,),
    "release": (3,),
    "fsync": (3, False),
    "opendir": (1, CONTEXT),
    "readdir": (3, 0, None),
    "releasedir": (3,),
    "fsyncdir": (3, False),
    "statfs": (CONTEXT,),
    "setxattr": (1, b"user.x", b"1", CONTEXT),
    "getxattr": (1, b"user.x", CONTEXT),
    "listxattr": (1, CONTEXT),
    "removexattr": (1, b"user.x", CONTEXT),
    "access": (1, os.R_OK, CONTEXT),
    "create": (1, b"x", 0o644, os.O_RDWR, CONTEXT),
}

UNANSWERED = {"poll"}
"""Left to pyfuse3's own ENOSYS: every file of ours is ready at all times, which the kernel then
assumes. (`forget` answers nothing; `init` and `stacktrace` are no requests of guests.)"""


def fuse_errno(core: FakeCore, name: str, style: str = "posix") -> int:
    operations = core.operations(style)  # type: ignore[arg-type]
    with pytest.raises(FUSEError) as caught:
        run(getattr(operations, name), *REQUESTS[name])
    number: int = caught.value.errno
    return number


@pytest.fixture
def core() -> FakeCore:
    core = FakeCore()
    core.namespace.has_slow_source = True  # so that flush is asked at all
    return core


every_request = pytest.mark.parametrize("name", REQUESTS)


# -- complete -------------------------------------------------------------------------------------


def test_every_handler_is_implemented_or_left_out_on_purpose() -> None:
    offered = {
        name
        for name, member in vars(pyfuse3.Operations).items()
        if inspect.iscoroutinefunction(member)
    }
    ours = {name for name in offered if name in vars(Operations)}
    assert ours == set(REQUESTS) | {"forget"}
    assert offered - ours == UNANSWERED


@every_request
def test_every_handler_takes_what_pyfuse3_gives(name: str) -> None:
    def parameters(owner: type) -> list[str]:
        return list(inspect.signature(getattr(owner, name)).parameters)[1:]

    assert len(parameters(Operations)) == len(parameters(pyfuse3.Operations))


# -- errors ---------------------------------------------------------------------------------------


@every_request
@pytest.mark.parametrize("number", [errno.ESTALE, errno.EACCES, errno.EROFS])
def test_an_os_error_is_its_errno(core: FakeCore, name: str, number: int) -> None:
    core.raises(OSError(number, "told so"))
    assert fuse_errno(core, name) == number


@every_request
def test_anything_else_is_eio_with_a_traceback(
    core: FakeCore, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    core.raises(RuntimeError("a defect"))
    with caplog.at_level(logging.ERROR):
        assert fuse_errno(core, name) == errno.EIO
    (record,) = caplog.records
    assert name in record.getMessage()
    assert record.exc_info is not None
    assert "a defect" in str(record.exc_info[1])


@every_request
def test_wasi_answers_eperm_for_erofs(core: FakeCore, name: str) -> None:
    core.raises(OSError(errno.EROFS, "read-only"))
    assert fuse_errno(core, name, "wasi") == errno.EPERM
    core.raises(OSError(errno.EXDEV, "across"))
    assert fuse_errno(core, name, "wasi") == errno.EXDEV


def test_an_os_error_without_a_number_is_eio(
    core: FakeCore, caplog: pytest.LogCaptureFixture
) -> None:
    core.raises(OSError("no number"))
    assert fuse_errno(core, "getattr") == errno.EIO
    assert len(caplog.records) == 1


def test_an_assertion_is_eio_too(core: FakeCore) -> None:
    core.raises(AssertionError())
    assert fuse_errno(core, "getattr", "wasi") == errno.EIO


def test_being_stopped_is_no_error(core: FakeCore) -> None:
    core.raises(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(core.operations().getattr, 1, CONTEXT)


@pytest.mark.parametrize("error", [RuntimeError(), OSError(errno.ESTALE, ""), AssertionError()])
def test_forget_never_raises_and_goes_on(
    core: FakeCore, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    core.raises(error)
    run(core.operations().forget, [(5, 1), (6, 2)])
    assert [args for _, args, _ in core.calls] == [(5, 1), (6, 2)]
    assert len(caplog.records) == 2


# -- threads --------------------------------------------------------------------------------------

IN_PLACE = {"read", "write", "flush", "fsync", "fsyncdir", "release", "releasedir"}
"""Decided by handle: these know beforehand whether to wait."""


@pytest.mark.parametrize("name", sorted(set(REQUESTS) - IN_PLACE - {"readdir", "statfs"}))
def test_what_would_block_is_asked_again_in_a_thread(core: FakeCore, name: str) -> None:
    answers: dict[str, object] = {"create": Created(3, ATTRS), "open": 3, "opendir": 3}
    core.blocks_first(answers.get(name, ATTRS))
    run(getattr(core.operations(), name), *REQUESTS[name])
    first, second = core.calls
    assert first[:2] == second[:2]
    assert first[2] == threading.get_ident() != second[2]


def test_what_does_not_block_stays_on_the_event_loop(core: FakeCore) -> None:
    run(core.operations().getattr, 1, CONTEXT)
    assert [thread for _, _, thread in core.calls] == [threading.get_ident()]


@pytest.mark.parametrize("name", ["fsync", "fsyncdir", "flush"])
def test_what_waits_for_the_disk_is_done_in_a_thread(core: FakeCore, name: str) -> None:
    run(getattr(core.operations(), name), *REQUESTS[name])
    assert [thread != threading.get_ident() for _, _, thread in core.calls] == [True]


def test_reading_asks_the_page_cache_first(core: FakeCore) -> None:
    core.answers["read_cached"] = lambda *_: b"cached"
    assert run(core.operations().read, 3, 0, 6) == b"cached"
    core.answers.update(read_cached=lambda *_: None, read=lambda *_: b"device")
    assert run(core.operations().read, 3, 0, 6) == b"device"
    (_, _, here), *_, (name, args, thread) = core.calls
    assert (name, args) == ("read", (3, 0, 6))
    assert thread != here


@pytest.mark.parametrize("slow", [True, False])
def test_writes_to_fast_file_systems_are_done_at_once(core: FakeCore, slow: bool) -> None:
    core.answers.update(may_block=lambda _: slow, write=lambda *_: 1 << 20)
    assert run(core.operations().write, 3, 0, bytes(1 << 20)) == 1 << 20
    name, _, thread = core.calls[-1]
    assert name == "write"
    assert (thread != threading.get_ident()) is slow


def test_where_the_host_slows_writers_down_they_wait_in_threads(
    core: FakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(*_: object) -> int:
        time.sleep(0.03)
        return 1

    core.answers.update(may_block=lambda _: False, write=slowly)
    adapter = core.operations()
    run(adapter.write, 3, 0, b"x")
    core.answers.update(write=lambda *_: 1)
    run(adapter.write, 3, 0, b"x")
    monkeypatch.setattr(throttled, "_EXPECTED_NS", 0)
    core.answers.update(write=slowly)
    adapter = core.operations()
    run(adapter.write, 3, 0, b"x")
    run(adapter.write, 3, 0, b"x")
    threads = [thread for name, _, thread in core.calls if name == "write"]
    here = threading.get_ident()
    assert [thread == here for thread in threads] == [True, False, True, True]


@pytest.mark.parametrize("slow", [True, False])
def test_closing_a_slow_file_is_done_in_a_thread(core: FakeCore, slow: bool) -> None:
    core.answers.update(may_block=lambda _: slow)
    run(core.operations().release, 3)
    name, _, thread = core.calls[-1]
    assert name == "release"
    assert (thread != threading.get_ident()) is slow


def test_flush_is_not_asked_for_where_nothing_is_slow(core: FakeCore) -> None:
    core.namespace.has_slow_source = False
    assert fuse_errno(core, "flush") == errno.ENOSYS
    assert core.calls == []


# -- what is copied -------------------------------------------------------------------------------


def test_attributes_are_copied_field_by_field(core: FakeCore) -> None:
    entry = run(core.operations().getattr, 1, CONTEXT)
    assert (entry.st_ino, entry.st_size) == (99, 1234)
    for field in ("mode", "nlink", "uid", "gid", "rdev", "blocks", "blksize"):
        assert getattr(entry, f"st_{field}") == getattr(STATUS, field), field
    for field in ("atime_ns", "mtime_ns", "ctime_ns"):
        assert getattr(entry, f"st_{field}") == getattr(STATUS, field), field
    assert (entry.entry_timeout, entry.attr_timeout) == (1.5, 1.5)


def test_what_changes_unseen_is_not_cached(core: FakeCore) -> None:
    core.default = lambda *_: ATTRS._replace(volatile=True)
    entry = run(core.operations().lookup, 1, b"x", CONTEXT)
    assert (entry.entry_timeout, entry.attr_timeout) == (0, 0)


@pytest.mark.parametrize(
    ("field", "attribute", "value"),
    [
        *(("mode", "st_mode", 0o600), ("uid", "st_uid", 12), ("gid", "st_gid", 34)),
        *(("size", "st_size", 56), ("atime_ns", "st_atime_ns", 7), ("mtime_ns", "st_mtime_ns", 8)),
    ],
)
def test_setattr_changes_what_is_named_and_nothing_else(
    core: FakeCore, field: str, attribute: str, value: int
) -> None:
    wanted = pyfuse3.EntryAttributes()
    setattr(wanted, attribute, value)
    chosen = {**vars(NOTHING), f"update_{field.removesuffix('_ns')}": True}
    run(core.operations().setattr, 5, wanted, SimpleNamespace(**chosen), 3, CONTEXT)
    _, (number, changes, handle, caller), _ = core.calls[0]
    assert (number, handle) == (5, 3)
    assert changes == Changes(**{field: value})
    assert tuple(caller) == (CONTEXT.uid, CONTEXT.gid, CONTEXT.pid)


def test_open_and_create_give_the_handle(core: FakeCore) -> None:
    core.answers.update(open=lambda *_: 77, create=lambda *_: Created(78, ATTRS))
    assert run(core.operations().open, 1, os.O_RDONLY, CONTEXT).fh == 77
    info, entry = run(core.operations().create, 1, b"x", 0o644, os.O_RDWR, CONTEXT)
    assert (info.fh, entry.st_ino) == (78, 99)


def test_rename_passes_its_arguments_in_order(core: FakeCore) -> None:
    run(core.operations().rename, 1, b"old", 2, b"new", 4, CONTEXT)
    assert core.calls[0][1][:5] == (1, b"old", 2, b"new", 4)


def test_statfs_copies_the_host_and_says_255(core: FakeCore) -> None:
    core.answers["statfs"] = lambda: os.statvfs("/")
    answer = run(core.operations().statfs, CONTEXT)
    assert answer.f_namemax == 255
    assert answer.f_blocks == os.statvfs("/").f_blocks


# -- names that are not there ---------------------------------------------------------------------


def test_an_absent_name_is_remembered(core: FakeCore) -> None:
    core.raises(OSError(errno.ENOENT, ""))
    entry = run(core.operations().lookup, 1, b"x", CONTEXT)
    assert (entry.st_ino, entry.entry_timeout) == (0, 1.5)


@pytest.mark.parametrize(("seconds", "shared"), [(0.0, False), (1.5, True)])
def test_unless_nothing_may_be_cached_or_it_may_come_to_be_unseen(
    core: FakeCore, seconds: float, shared: bool
) -> None:
    core.raises(OSError(errno.ENOENT, ""))
    core.shared = shared
    with pytest.raises(FUSEError) as caught:
        run(core.operations(seconds=seconds).lookup, 1, b"x", CONTEXT)
    assert caught.value.errno == errno.ENOENT


# -- listings -------------------------------------------------------------------------------------


class Listing:
    """The core's side of a listing and the kernel's, which has room for so many entries."""

    def __init__(self, core: FakeCore, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.taken: list[bytes] = []
        self.room = room
        self.fails_after = 100
        self.error: Exception = OSError(errno.EACCES, "")
        core.answers["entries"] = self.entries
        monkeypatch.setattr(pyfuse3, "readdir_reply", self.reply)

    def entries(self, handle: int, start: int) -> Any:
        for index in range(start, 5):
            if index >= self.fails_after:
                raise self.error
            yield [Entry(b"n%d" % index, ATTRS, index + 1)]

    def reply(self, token: object, name: bytes, entry: object, cookie: int) -> bool:
        if len(self.taken) == self.room:
            return False
        self.taken.append(name)
        return True


def settled(core: FakeCore) -> dict[bytes, int]:
    calls = [args for called, args, _ in core.calls if called == "settle"]
    return {entries[0].name: taken for entries, taken in calls}


@pytest.mark.parametrize("room", [0, 1, 3, 5, 9])
def test_each_entry_the_kernel_takes_is_accepted_and_one_it_refuses_is_given_back(
    core: FakeCore, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    listing = Listing(core, monkeypatch, room)
    run(core.operations().readdir, 3, 0, None)
    assert listing.taken == [b"n%d" % i for i in range(min(room, 5))]
    assert settled(core) == {b"n%d" % i: i < room for i in range(min(room + 1, 5))}


@pytest.mark.parametrize("error", [OSError(errno.EACCES, ""), WouldBlock(DEVICE)])
def test_an_error_after_the_first_entry_waits_for_the_next_call(
    core: FakeCore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    listing = Listing(core, monkeypatch, 9)
    listing.fails_after, listing.error = 2, error
    run(core.operations().readdir, 3, 0, None)
    assert listing.taken == [b"n0", b"n1"]


def test_an_error_before_the_first_entry_is_told(
    core: FakeCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    listing = Listing(core, monkeypatch, 9)
    listing.fails_after = 2
    with pytest.raises(FUSEError) as caught:
        run(core.operations().readdir, 3, 2, None)
    assert caught.value.errno == errno.EACCES

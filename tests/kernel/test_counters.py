"""What the adapter counts: each request once, errors as they are answered, handles to their end."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from pyfuse3 import FUSEError

from overlayd.core.assembly import Attachment
from overlayd.errors import erofs
from overlayd.kernel.cache import CachePolicy
from overlayd.kernel.counters import Tally
from overlayd.kernel.operations import Operations
from support.core_guest import make_overlay
from support.fake_core import CONTEXT, FakeCore, run
from support.planting import plant


@pytest.fixture
def operations(tmp_path: Path) -> Operations:
    """The adapter over a real core: `/` and, read-only, `/lib` and `/made/up`."""
    top = plant(tmp_path / "top", "file=abc")
    lib = plant(tmp_path / "lib", "file=xyz")
    dirs = (f"{top}::/", f"{lib}::/lib::ro", f"{lib}::/made/up::ro")
    return Operations(make_overlay(*dirs), CachePolicy(1.0), "posix")


def tally(operations: Operations, guest: str | None) -> Tally:
    """What was counted for the preopen at GUEST, or for what is synthetic."""
    mounts: dict[str, Attachment] = {
        str(mount.preopen).split("::")[1]: mount
        for mount in operations._overlay.namespace.assembly.attachments
    }
    return operations.counters.of(None if guest is None else mounts[guest])


def test_by_operation_and_by_preopen(operations: Operations) -> None:
    lib = run(operations.lookup, 1, b"lib", CONTEXT)
    run(operations.lookup, lib.st_ino, b"file", CONTEXT)
    made = run(operations.lookup, 1, b"made", CONTEXT)
    run(operations.lookup, made.st_ino, b"up", CONTEXT)
    run(operations.statfs, CONTEXT)
    assert operations.counters.operations == {"lookup": 4, "statfs": 1}
    counts = [tally(operations, guest).operations for guest in ("/", "/lib", "/made/up", None)]
    assert counts == [2, 1, 0, 1]


def test_a_handle_counts_for_its_preopen_to_its_end(operations: Operations) -> None:
    file = run(operations.lookup, 1, b"file", CONTEXT)
    handle = run(operations.open, file.st_ino, os.O_RDWR, CONTEXT).fh
    count = tally(operations, "/")
    assert count.handles == 1
    run(operations.unlink, 1, b"file", CONTEXT)
    assert run(operations.write, handle, 0, b"12345") == 5
    assert run(operations.read, handle, 0, 100) == b"12345"
    run(operations.release, handle)
    assert (count.handles, count.bytes_read, count.bytes_written) == (0, 5, 5)
    with pytest.raises(FUSEError):
        run(operations.release, handle)
    assert count.handles == 0
    assert operations.counters.errors == {errno.EBADF: 1}


def test_numbers_that_mean_nothing_are_counted_all_the_same(operations: Operations) -> None:
    for call, number in ((operations.getattr, 4711), (operations.listxattr, 0)):
        with pytest.raises(FUSEError):
            run(call, number, CONTEXT)
    assert operations.counters.operations == {"getattr": 1, "listxattr": 1}
    assert operations.counters.errors == {errno.ESTALE: 2}


@pytest.mark.parametrize(("style", "number"), [("posix", errno.EROFS), ("wasi", errno.EPERM)])
def test_errors_count_as_they_are_answered(style: str, number: int) -> None:
    core = FakeCore()
    core.raises(erofs())
    operations = core.operations(style)  # type: ignore[arg-type]
    with pytest.raises(FUSEError):
        run(operations.getattr, 1, CONTEXT)
    assert operations.counters.errors == {number: 1}


def test_what_nobody_planned_for_counts_as_eio() -> None:
    core = FakeCore()
    core.raises(KeyError("defect"))
    operations = core.operations()
    with pytest.raises(FUSEError):
        run(operations.getattr, 1, CONTEXT)
    assert operations.counters.errors == {errno.EIO: 1}

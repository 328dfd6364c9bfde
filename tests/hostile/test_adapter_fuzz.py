"""The adapter over the real core, under requests no kernel would send: an answer or a FUSEError."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pyfuse3
import pytest
import trio
from hypothesis import HealthCheck, given, settings

from hostile.raw_calls import Kernel, fingerprint, hostile_overlay, steps
from overlayd.core.types import Changes
from overlayd.host.credentials import Caller
from overlayd.kernel.cache import CachePolicy
from overlayd.kernel.operations import Operations
from support.fake_core import CONTEXT

_FIELDS = {
    "mode": "mode",
    "uid": "uid",
    "gid": "gid",
    "size": "size",
    "atime": "atime_ns",
    "mtime": "mtime_ns",
}


class Listener(logging.Handler):
    """Keeps what the adapter calls unexpected."""

    def __init__(self) -> None:
        super().__init__()
        self.unexpected: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.unexpected.append(f"{record.getMessage()}: {record.exc_info[1]!r}")


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    listener = Listener()
    log = logging.getLogger("overlayd")
    log.addHandler(listener)
    yield listener
    log.removeHandler(listener)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    before = os.umask(0)
    yield tmp_path_factory.mktemp("hostile")
    os.umask(before)


@pytest.fixture(scope="module")
def kernel(place: Path) -> Iterator[Kernel]:
    """The kernel's numbers and handles; its books are the core tests' business."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyfuse3, "readdir_reply", lambda *entry: entry[-1] % 5)
        yield Kernel(hostile_overlay(place))


def request(name: str, arguments: list[object]) -> tuple[str, list[object]]:
    """The handler and its arguments that a raw call of the core comes from."""
    verb = name.partition(".")[2].removesuffix("_cached")
    words: list[object] = [CONTEXT if isinstance(word, Caller) else word for word in arguments]
    if verb == "forget":
        return verb, [[tuple(words)]]
    if verb == "origin":
        return "read", [*words, 0, 4096]
    if verb == "origin_to_sync":
        return "fsync", [*words, False]
    if verb == "entries":
        return "readdir", [*words, None]
    if verb == "setattr":
        changes = words[1]
        assert isinstance(changes, Changes)
        wanted = {key: getattr(changes, field) for key, field in _FIELDS.items()}
        fields = {f"update_{key}": value is not None for key, value in wanted.items()}
        values = {f"st_{field}": getattr(changes, field) for field in _FIELDS.values()}
        return verb, [words[0], SimpleNamespace(**values), SimpleNamespace(**fields), *words[2:]]
    if verb in ("lookup", "getattr", "readlink", "statfs"):
        words.append(CONTEXT)
    return verb, words


async def send(
    operations: Operations, kernel: Kernel, calls: list[tuple[str, list[object]]]
) -> None:
    for name, drawn in calls:
        verb, words = request(name, kernel.resolved(name, drawn))
        try:
            answer = await getattr(operations, verb)(*words)
        except pyfuse3.FUSEError as error:
            if error.errno not in errno.errorcode:
                raise
            continue
        if verb in ("open", "create"):
            info = answer[0] if verb == "create" else answer
            kernel.handles.append(info.fh)
        elif verb == "opendir":
            kernel.handles.append(answer)
        if isinstance(answer, pyfuse3.EntryAttributes) and answer.st_ino:
            kernel.numbers.append(answer.st_ino)


@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(calls=steps)
def test_only_answers_and_fuse_errors(
    place: Path, kernel: Kernel, listener: Listener, calls: list[tuple[str, list[object]]]
) -> None:
    untouchable = (place / "canary", place / "ro", place / "top/d/masked")
    before = fingerprint(*untouchable)
    operations = Operations(kernel.overlay, CachePolicy(1.0), "posix")
    trio.run(send, operations, kernel, calls)
    assert not listener.unexpected
    assert fingerprint(*untouchable) == before


def test_more_given_back_than_lent_ends_nothing(place: Path, kernel: Kernel) -> None:
    operations = Operations(kernel.overlay, CachePolicy(1.0), "posix")
    trio.run(operations.forget, [(1, 2**64 - 1), (2**64 - 1, 1), (kernel.numbers[-1], 2**64 - 1)])
    assert trio.run(operations.getattr, 1, CONTEXT).st_ino == 1

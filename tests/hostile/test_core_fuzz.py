"""The core under calls no kernel would make: an answer or an OSError, and the books balance."""

from __future__ import annotations

import errno
import gc
import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from hostile.raw_calls import CALLERS, Kernel, fingerprint, hostile_overlay, steps
from overlayd.core.overlay import Overlay
from overlayd.core.types import Changes
from support.core_guest import fails


class Stage:
    """One long-lived overlay, and what must not change."""

    def __init__(self, places: Iterator[Path]) -> None:
        self._places = places
        self.renew()

    def renew(self) -> None:
        """Begin afresh: what one example broke must not break the next."""
        place = next(self._places)
        self.overlay: Overlay = hostile_overlay(place)
        self.untouchable = (place / "canary", place / "ro", place / "top/d/masked")
        self.before = fingerprint(*self.untouchable)

    def check(self) -> None:
        assert fingerprint(*self.untouchable) == self.before


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    before_umask = os.umask(0)
    yield Stage(tmp_path_factory.mktemp("hostile") for _ in count())
    os.umask(before_umask)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(calls=steps)
def test_only_answers_and_errors_with_a_number(
    stage: Stage, calls: list[tuple[str, list[object]]]
) -> None:
    kernel = Kernel(stage.overlay)
    try:
        for name, arguments in calls:
            kernel.make(name, arguments)
        kernel.check_books()
        kernel.give_back()
        stage.check()
    except BaseException:
        stage.renew()
        raise


def test_no_descriptor_is_left(stage: Stage) -> None:
    gc.collect()
    cached = len(stage.overlay.namespace.cache)
    assert cached <= 8
    kernel = Kernel(stage.overlay)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        for name in (b"f", b"g", b"d", b"new"):
            kernel.make("names.lookup", [(True, 0), name])
            kernel.make("data.open", [(True, 0), os.O_RDONLY, CALLERS[0]])
            kernel.make("names.opendir", [(True, 0), CALLERS[0]])
    kernel.give_back()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 8


def test_a_handle_on_another_file_gives_no_right_to_it(stage: Stage) -> None:
    """A size set through a handle changes what the handle is open on, so it must be that node."""
    overlay = stage.overlay
    shown = overlay.names.lookup(overlay.names.lookup(1, b"ro").number, b"file").number
    created = overlay.data.create(1, b"own", 0o644, os.O_RDWR, CALLERS[0])
    handle = overlay.data.open(shown, os.O_RDONLY, CALLERS[0])
    for changes in (Changes(mode=0o777), Changes(size=0), Changes(mtime_ns=1)):
        with fails(errno.EBADF):
            overlay.attributes.setattr(created.attrs.number, changes, handle, CALLERS[0])
    overlay.data.release(handle)
    overlay.data.release(created.handle)
    stage.check()

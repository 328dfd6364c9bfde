"""A fixture that keeps what tests start apart from the machine's own, and finds what they leave."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from support.mounting import is_mounted, mount_points
from support.processes import become_subreaper, daemons_of, ends, reap

_MNT_FORCE = 1
_MNT_DETACH = 2


@pytest.fixture(autouse=True)
def runtime_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime directory of the test's own; fails a test that leaves a mount or a process."""
    become_subreaper()
    place = Path(tempfile.mkdtemp(prefix="overlayd-test-"))
    records = place / "run"
    (place / "tmp").mkdir()
    monkeypatch.setenv("OVERLAYD_RUNTIME_DIR", str(records))
    monkeypatch.setenv("TMPDIR", str(place / "tmp"))
    try:
        yield records
        problems = _left_behind((tmp_path, place), records)
    finally:
        _clear((tmp_path, place), records)
        shutil.rmtree(place)
    assert not problems, f"left behind: {problems}"


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory like tmp_path that every user may enter (pytest's own are closed)."""
    place = Path(tempfile.mkdtemp(prefix="overlayd-test-", dir="/tmp")).resolve()
    place.chmod(0o755)
    try:
        yield place
        left = mounts_below(place)
    finally:
        _detach_below(place)
        shutil.rmtree(place)
    assert not left, f"left behind: {left}"


def mounts_below(place: Path) -> list[str]:
    """Mount points inside PLACE, the innermost first."""
    return sorted((p for p in mount_points() if p.startswith(f"{place}/")), reverse=True)


def _left_behind(places: tuple[Path, Path], records: Path) -> list[str]:
    for pid in daemons_of(records):  # one that has just unmounted may still be on its way out
        ends(pid, 2)
    left = [f"mount {point}" for place in places for point in mounts_below(place)]
    left += [f"process {pid}" for pid in daemons_of(records)]
    left += [f"record {entry}" for entry in records.glob("*")]
    left += [f"file {entry}" for entry in (records.parent / "tmp").iterdir()]
    return left


def _clear(places: tuple[Path, Path], records: Path) -> None:
    for place in places:
        _detach_below(place)
    reap(daemons_of(records))
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _detach_below(place: Path) -> None:
    for point in mounts_below(place):
        force_off(Path(point))


def force_off(target: Path) -> None:
    """Take everything off TARGET and end what waits for an answer there.

    A daemon that waits for itself cannot be killed; MNT_FORCE makes the kernel give up on it.
    """
    umount2 = ctypes.CDLL(None, use_errno=True).umount2
    while is_mounted(target):
        assert umount2(os.fsencode(target), _MNT_FORCE | _MNT_DETACH) == 0

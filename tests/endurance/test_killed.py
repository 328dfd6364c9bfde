"""The daemon killed at every stage of its life, and told to end while it is written to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support import stalling
from support.live import daemon_of, is_live, kill, make_dirs, make_target, mount
from support.mounting import is_mounted, unmount
from support.processes import attempt, complaint, ends, in_child, reap, wait_until
from support.side_by_side import see_off, start

LIFECYCLE = "overlayd.service.lifecycle"

AT_ONCE = 4.0
"""Seconds; less than what requests that are under way are given at the end."""

STARTING = [
    (LIFECYCLE, "prepare_target", "before"),
    ("pyfuse3", "init", "before"),
    ("pyfuse3", "init", "after"),
    (LIFECYCLE, "Registration", "before"),
    (LIFECYCLE, "Registration", "after"),
    ("json", "dumps", "before"),
    ("trio", "run", "before"),
]
STOPPING = [
    (LIFECYCLE, "take_down", "before"),
    (LIFECYCLE, "take_down", "after"),
    ("pyfuse3", "close", "before"),
    ("pyfuse3", "close", "after"),
    ("overlayd.service.registry", "Registration.remove", "before"),
    ("overlayd.service.registry", "Registration.remove", "after"),
]


def stalling_mount(stage: tuple[str, str, str], place: Path) -> subprocess.Popen[str]:
    words = [sys.executable, stalling.__file__, *stage, str(place / "marker"), "--", "mount"]
    return subprocess.Popen(
        [*words, "--dir", f"{place / 'source'}::/", str(place / "target")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stalled(marker: Path) -> int:
    """The daemon's process id, once it is where it stops."""
    assert wait_until(marker.exists)
    return int(marker.read_text())


def check_next_mount(target: Path, source: Path) -> None:
    """It clears what is there, works, and leaves nothing."""
    mount(target, source)
    assert in_child(is_live, target)
    in_child(lambda: (target / "new").write_text("new"))
    assert (source / "new").read_text() == "new"
    assert unmount(target) == []
    assert not is_mounted(target)


@pytest.mark.parametrize("stage", STARTING, ids="-".join)
def test_killed_while_it_starts(tmp_path: Path, stage: tuple[str, str, str]) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    starting = stalling_mount(stage, tmp_path)
    reap([stalled(tmp_path / "marker")])
    said = starting.communicate(timeout=10)[1]
    done = subprocess.CompletedProcess([], starting.returncode, "", said)
    assert "died while it was starting" in complaint(done, 1)
    check_next_mount(target, source)


@pytest.mark.parametrize("stage", STOPPING, ids="-".join)
def test_killed_while_it_stops(tmp_path: Path, stage: tuple[str, str, str]) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    starting = stalling_mount(stage, tmp_path)
    assert starting.communicate(timeout=10) == ("", "")
    daemon = daemon_of(target)
    os.kill(daemon, signal.SIGTERM)
    assert stalled(tmp_path / "marker") == daemon
    reap([daemon])
    check_next_mount(target, source)


def write_on(path: Path, acknowledged: Path) -> None:
    """Write numbered lines until that fails, as it need not where they pass the daemon by; note
    elsewhere how many were taken."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    note = os.open(acknowledged, os.O_WRONLY | os.O_CREAT)
    for number in range(200_000):
        assert os.write(fd, b"%09d\n" % number) == 10
        os.pwrite(note, b"%09d" % (number + 1), 0)


@pytest.mark.usefixtures("data_way")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
def test_ended_while_files_are_written(tmp_path: Path, number: signal.Signals) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    daemon = mount(target, source)
    notes = [tmp_path / f"note{writer}" for writer in range(4)]
    writers = [start(lambda n=note: write_on(target / n.name, n)) for note in notes]  # type: ignore[misc]
    assert wait_until(lambda: all(note.exists() for note in notes))
    time.sleep(0.3)
    if number == signal.SIGKILL:
        kill(daemon)
    else:
        os.kill(daemon, number)
        assert ends(daemon)
        assert not is_mounted(target)
    see_off(writers)
    for note in notes:
        taken = int(note.read_text())
        lines = (source / note.name).read_bytes()
        expected = b"".join(b"%09d\n" % line for line in range(taken + 1))
        assert lines in (expected, expected[:-10]), note  # one more may have been under way
        assert taken > 10
    check_next_mount(target, source)


def test_open_files_end_with_the_mount(tmp_path: Path) -> None:
    """Unless their data passes the daemon by: passthrough/test_data.py."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    daemon = mount(target, source, "--passthrough", "off")
    fd = os.open(target / "file", os.O_RDWR)
    os.write(fd, b"kept")
    os.kill(daemon, signal.SIGTERM)
    assert ends(daemon, AT_ONCE)
    with pytest.raises(OSError):
        in_child(os.write, fd, b"lost")
    with pytest.raises(OSError):
        in_child(os.fsync, fd)
    with pytest.raises(OSError):
        os.close(fd)
    assert (source / "file").read_text() == "keptce"
    assert attempt("umount", str(target)).returncode == 1

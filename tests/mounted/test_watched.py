"""Watching the host at its limits: lost events, what inotify does not tell of, other modes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.live import daemon_of, is_watching, make_target
from support.mounting import is_mounted, mounted, overlayd, unmount
from support.planting import plant
from support.processes import in_child, stopped, wait_until

pytestmark = pytest.mark.alone

SOON = 0.5
"""Seconds; 0.1 are promised on a quiet machine."""


def sees(condition: Callable[[], bool], seconds: float = SOON) -> bool:
    """Whether a guest sees CONDITION come true in time."""
    return in_child(wait_until, condition, seconds)


def exists(path: Path) -> bool:
    return os.path.lexists(path)


def warm(top: Path, *paths: str) -> None:
    """Have the kernel keep what it is told of PATHS for good: they are watched by the second."""
    for _ in range(2):
        in_child(lambda: [exists(top / path) for path in paths])
        in_child(lambda: wait_until(lambda: False, 0.11))
    in_child(lambda: [exists(top / path) for path in paths])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return plant(tmp_path / "source", "f=F", "g=G", "sub/x=X", "sub/below/y=Y")


@contextmanager
def tmpfs_on(place: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.usefixtures("data_way")
def test_lost_events_lose_nothing_and_leave_mounts_alone(tmp_path: Path, source: Path) -> None:
    """A queue that was full: names, absent ones too, and attributes are asked for again."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with mounted(tmp_path, f"{source}::/") as top:
        assert wait_until(lambda: is_watching(top))
        warm(top, "f", "g", "absent", "sub/x", "sub/absent", "sub/below/y")
        with tmpfs_on(top / "sub/below"):
            with stopped(daemon_of(top)):
                for count in range(limit + 2):
                    os.chmod(source / "fg"[count % 2], 0o600)
                (source / "absent").touch()
                (source / "sub/absent").touch()
                (source / "sub/x").unlink()
                (source / "f").write_text("longer")
            assert sees(lambda: exists(top / "absent") and exists(top / "sub/absent"))
            assert sees(lambda: not exists(top / "sub/x"))
            assert sees(lambda: (top / "f").read_text() == "longer")
            assert is_mounted(top / "sub/below")
        # And all of it is watched again.
        warm(top, "sub/x", "f")
        (source / "sub/x").touch()
        (source / "f").chmod(0o640)
        assert sees(lambda: exists(top / "sub/x"))
        assert sees(lambda: (top / "f").stat().st_mode & 0o777 == 0o640)


def test_what_the_host_mounts_in_a_source(tmp_path: Path, source: Path) -> None:
    with mounted(tmp_path, f"{source}::/") as top:
        assert wait_until(lambda: is_watching(top))
        warm(top, "sub/x", "sub/new")
        with tmpfs_on(source / "sub"):
            assert sees(lambda: not exists(top / "sub/x"))
            warm(top, "sub/x", "sub/new")
            (source / "sub/new").touch()
            assert sees(lambda: exists(top / "sub/new"))
        assert sees(lambda: exists(top / "sub/x") and not exists(top / "sub/new"))


def test_one_mount_soon_after_another(tmp_path: Path, source: Path) -> None:
    """Also where the daemon has not quite done with the one before."""
    with mounted(tmp_path, f"{source}::/") as top:
        assert wait_until(lambda: is_watching(top))
        for milliseconds in range(0, 24, 4):
            with tmpfs_on(source / "sub"):
                time.sleep(0.05)
            time.sleep(milliseconds / 1000)
            in_child(exists, top / "sub/x")
            with tmpfs_on(source / "sub"):
                assert sees(lambda: not exists(top / "sub/x")), f"after {milliseconds} ms"


def test_only_the_coherent_mode_watches_and_a_reload_changes_it(
    tmp_path: Path, source: Path
) -> None:
    def configure(cache: str) -> None:
        entry = f'[[dir]]\nhost = "{source}"\nguest = "/"\n'
        (tmp_path / "guest.toml").write_text(f'cache = "{cache}"\n{entry}')

    configure("none")
    top = make_target(tmp_path)
    overlayd("mount", "--config", str(tmp_path / "guest.toml"), str(top))
    try:
        assert not is_watching(top)
        configure("coherent")
        overlayd("reload", str(top))
        assert wait_until(lambda: is_watching(top))
        warm(top, "f", "absent")
        configure("none")
        overlayd("reload", str(top))
        (source / "absent").touch()
        (source / "f").unlink()
        assert sees(lambda: exists(top / "absent") and not exists(top / "f"))
        configure("coherent")
        overlayd("reload", str(top))
        assert wait_until(lambda: is_watching(top))
    finally:
        assert unmount(top) == []

"""Where the host cannot be watched: a change shows within a second, and nothing else suffers."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from coherence.matrix import Matrix, Way, by_source, sample
from support.live import make_dirs
from support.mounting import mounted
from support.processes import in_child

LIMIT = 3.0
"""Seconds; one is promised."""

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000

SYSCTLS = {
    "watches": ("max_inotify_watches", 8),
    "no watches": ("max_inotify_watches", 0),
    "instances": ("max_inotify_instances", 0),
}


def not_seen(place: Path, way: Way) -> list[str]:
    """What is not right in time after changes by WAY."""
    with Matrix(place, watched=False) as matrix:
        matrix.plant(way)
        matrix.warm()
        matrix.change()
        return matrix.wrong(LIMIT)


def test_a_fuse_source(tmp_path: Path) -> None:
    """Another mount of ours: nobody is told what is changed behind it."""
    (source,) = make_dirs(tmp_path, "source")
    with mounted(tmp_path, f"{source}::/") as inner, mounted(tmp_path, f"{inner}::/") as outer:
        wrong = in_child(not_seen, tmp_path / "own", sample(by_source("ours", outer, source), 1, 6))
    assert not wrong, "\n".join(wrong)


def in_user_namespace(function: Callable[[], object], sysctl: str, value: int) -> None:
    """Call FUNCTION in a child as root of namespaces of its own, where SYSCTL is VALUE."""

    def apart() -> None:
        me, (heard, told) = os.getpid(), os.pipe()
        mapper = os.fork()
        if mapper == 0:  # all ids can be mapped from outside only
            os.read(heard, 1)
            for ids in ("uid_map", "gid_map"):
                Path(f"/proc/{me}/{ids}").write_text("0 0 4294967295")
            os._exit(0)
        assert ctypes.CDLL(None).unshare(_CLONE_NEWUSER | _CLONE_NEWNS) == 0
        os.write(told, b".")
        assert os.waitpid(mapper, 0)[1] == 0
        Path("/proc/sys/user", sysctl).write_text(str(value))
        function()

    in_child(apart)


@pytest.mark.parametrize("limit", SYSCTLS)
def test_too_few_watches(tmp_path: Path, limit: str) -> None:
    """One line of the log says what is not watched, and which setting would help."""
    sysctl, value = SYSCTLS[limit]
    (source,) = make_dirs(tmp_path, "source")

    def use() -> None:
        with mounted(tmp_path, f"{source}::/") as top:
            way = sample(by_source("source", top, source), 2)
            wrong = not_seen(tmp_path / "own", way)
            assert not wrong, "\n".join(wrong)

    in_user_namespace(use, sysctl, value)
    (log,) = tmp_path.glob("target-*.log")
    warnings = [line for line in log.read_text().splitlines() if sysctl in line]
    assert len(warnings) == 1, log.read_text()

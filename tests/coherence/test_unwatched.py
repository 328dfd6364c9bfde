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

pytestmark = pytest.mark.usefixtures("data_way")

LIMIT = 2.0
"""Seconds; one is promised."""

_CLONE_NEWNS, _CLONE_NEWUSER = 0x20000, 0x10000000

LIMITS = {
    "few watches": ("watches", 8),
    "none at all": ("instances", 0),
}
"""What of inotify is limited for a user, and to how many."""


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
        wrong = in_child(
            not_seen, tmp_path / "own", sample(by_source("FUSE source", outer, source), 1, 8)
        )
    assert not wrong, "\n".join(wrong)


def in_user_namespace(function: Callable[[], object], what: str, most: int) -> None:
    """Call FUNCTION in a child as root of namespaces of its own, with MOST of WHAT of inotify."""

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
        Path(f"/proc/sys/user/max_inotify_{what}").write_text(str(most))
        function()

    in_child(apart)


@pytest.mark.parametrize(("what", "most"), LIMITS.values(), ids=LIMITS)
def test_too_few_for_this_user(tmp_path: Path, what: str, most: int) -> None:
    """One line of the log says that not all is watched, and which setting would help."""
    (source,) = make_dirs(tmp_path, "source")

    def use() -> None:
        with mounted(tmp_path, f"{source}::/") as top:
            wrong = not_seen(tmp_path / "own", sample(by_source("source", top, source), 2, 6))
            assert not wrong, "\n".join(wrong)

    in_user_namespace(use, what, most)
    (log,) = tmp_path.glob("target-*.log")
    warnings = [line for line in log.read_text().splitlines() if " WARNING " in line]
    assert len(warnings) == 1, log.read_text()
    assert f"raise fs.inotify.max_user_{what} with sysctl" in warnings[0]

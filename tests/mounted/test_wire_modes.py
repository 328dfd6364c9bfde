"""A mount with the extension and one without: both serve, and the daemon says which is which."""

from __future__ import annotations

import json
import mmap
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import dents
from support.mounting import mounted, overlayd
from support.planting import plant
from support.processes import wait_until
from support.side_by_side import start

BY_EXTENSION = "direct answers, parallel lookups"


@pytest.mark.parametrize(
    ("switch", "way", "said"),
    [
        ("on", "auto", BY_EXTENSION),
        ("on", "off", BY_EXTENSION),
        ("off", "auto", "off (switched off by OVERLAYD_WIRE)"),
    ],
)
def test_both_serve(
    switch: str, way: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERLAYD_WIRE", switch)
    names = [f"file{number}" for number in range(60)]
    source = plant(tmp_path / "source", *(f"{name}={name}" for name in names))
    mount = mounted(tmp_path, f"{source}::/", options=["--passthrough", way])
    with mount as target, ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda name: (target / name).read_text(), names)) == names
        listings = list(pool.map(lambda _: sorted(os.listdir(target)), range(16)))
        assert listings == [sorted(names)] * 16
        list(pool.map(lambda name: (target / f"{name}.new").write_text(name), names))
        list(pool.map(lambda name: (target / name).unlink(), names))
        assert sorted(os.listdir(target)) == sorted(os.listdir(source))
        status = json.loads(overlayd("status", "--json", str(target)))["status"]
        assert status["wire"] == said


@pytest.mark.parametrize("switch", ["on", "off"])
def test_what_writing_asks_for(
    switch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is told who clears set-id bits, the kernel asks for capabilities each time."""
    monkeypatch.setenv("OVERLAYD_WIRE", switch)
    source = plant(tmp_path / "source", "file=x")
    with mounted(tmp_path, f"{source}::/", options=["--passthrough", "off"]) as target:
        for flags, synced in ((0, 0), (os.O_DSYNC, 20), (os.O_SYNC, 20), (os.O_DIRECT, 0)):
            fd = os.open(target / "file", os.O_WRONLY | flags)
            with mmap.mmap(-1, 4096) as page:
                before = requests_of(target)
                assert [os.pwrite(fd, page, i * 4096) for i in range(20)] == [4096] * 20
                asked = requests_of(target) - before
            os.close(fd)
            assert asked["write"] == 20
            assert asked["fsync"] == synced
            assert (asked["getxattr"] >= 20) is (switch == "off")


def requests_of(target: Path) -> Counter[str]:
    """All so far, by operation."""
    status = json.loads(overlayd("status", "--json", str(target)))["status"]
    return Counter(status["operations"])


def test_a_listing_that_is_kept_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERLAYD_WIRE", "on")
    source = plant(tmp_path / "source", *(f"dir/file{number}=x" for number in range(50)))
    with mounted(tmp_path, f"{source}::/") as target:

        def walk() -> int:
            return len([entry.stat() for entry in os.scandir(target / "dir")])

        def costs_nothing() -> bool:
            before = requests_of(target)["readdir"]
            assert walk() == 50
            return requests_of(target)["readdir"] == before

        assert walk() == 50
        assert requests_of(target)["readdir"] > 0
        assert wait_until(costs_nothing)  # once the directory is watched
        (target / "dir/new").touch()
        assert walk() == 51
        (target / "dir/file7").unlink()
        assert walk() == 50
        (source / "dir/file8").unlink()
        assert wait_until(lambda: walk() == 49, seconds=1)


def test_a_listing_that_is_forgotten_half_way_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun out of what the kernel kept of an earlier one, and ended by the daemon."""
    monkeypatch.setenv("OVERLAYD_WIRE", "on")
    names = {b"file%d" % number for number in range(200)}
    source = plant(tmp_path / "source", *(f"dir/{name.decode()}=x" for name in names))
    with mounted(tmp_path, f"{source}::/") as target:
        for _ in range(3):  # once the directory is watched the listing is kept
            assert len(dents.listing(target / "dir")) == 202
        stream = os.open(target / "dir", os.O_RDONLY)
        try:
            begun = {dent.name for dent in dents.read_some(stream, 2048)}
            for name in begun - {b".", b".."}:
                (source / "dir" / os.fsdecode(name)).unlink()
            assert wait_until(lambda: len(os.listdir(target / "dir")) < 200, seconds=2)
            rest = [dent.name for dent in dents.read_all(stream)]
        finally:
            os.close(stream)
    assert begun and len(rest) == len(set(rest))
    assert begun.isdisjoint(rest) and begun.union(rest) == names | {b".", b".."}


@pytest.mark.alone
@pytest.mark.parametrize("switch", ["on", "off"])
def test_others_get_their_turn_while_requests_keep_coming(
    switch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also whoever waits in a thread: writing to the disk is done in one."""
    monkeypatch.setenv("OVERLAYD_WIRE", switch)
    source = plant(tmp_path / "source", "file=x")

    def hammer() -> None:
        while True:
            os.stat(target / "file")

    with mounted(tmp_path, f"{source}::/", options=["--cache", "none"]) as target:
        guests = [start(hammer) for _ in range(2)]
        try:
            before = requests_of(target)
            with (target / "file").open("w") as file:
                for _ in range(20):
                    os.fsync(file)
            assert (requests_of(target) - before)["getattr"] > 100
        finally:
            for guest in guests:
                os.kill(guest, signal.SIGKILL)
                os.waitpid(guest, 0)

"""A mount with the extension and one without: both serve, and the daemon says which is which."""

from __future__ import annotations

import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.mounting import mounted, overlayd
from support.planting import plant
from support.processes import wait_until


@pytest.mark.parametrize(
    ("switch", "said"),
    [("on", "parallel lookups"), ("off", "off (switched off by OVERLAYD_WIRE)")],
)
def test_both_serve(
    switch: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERLAYD_WIRE", switch)
    names = [f"file{number}" for number in range(60)]
    source = plant(tmp_path / "source", *(f"{name}={name}" for name in names))
    with mounted(tmp_path, f"{source}::/") as target, ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda name: (target / name).read_text(), names)) == names
        listings = list(pool.map(lambda _: sorted(os.listdir(target)), range(16)))
        assert listings == [sorted(names)] * 16
        list(pool.map(lambda name: (target / f"{name}.new").write_text(name), names))
        list(pool.map(lambda name: (target / name).unlink(), names))
        assert sorted(os.listdir(target)) == sorted(os.listdir(source))
        status = json.loads(overlayd("status", "--json", str(target)))["status"]
        assert status["wire"] == said


def test_a_listing_that_is_kept_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERLAYD_WIRE", "on")
    source = plant(tmp_path / "source", *(f"dir/file{number}=x" for number in range(50)))
    with mounted(tmp_path, f"{source}::/") as target:

        def asked() -> Counter[str]:
            status = json.loads(overlayd("status", "--json", str(target)))["status"]
            return Counter(status["operations"])

        def walk() -> int:
            return len([entry.stat() for entry in os.scandir(target / "dir")])

        def costs_nothing() -> bool:
            before = asked()["readdir"]
            assert walk() == 50
            return asked()["readdir"] == before

        assert walk() == 50
        assert asked()["readdir"] > 0
        assert wait_until(costs_nothing)  # once the directory is watched
        (target / "dir/new").touch()
        assert walk() == 51
        (target / "dir/file7").unlink()
        assert walk() == 50
        (source / "dir/file8").unlink()
        assert wait_until(lambda: walk() == 49, seconds=1)

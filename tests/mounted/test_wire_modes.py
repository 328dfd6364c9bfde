"""A mount with the extension and one without: both serve, and the daemon says which is which."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.live import make_target
from support.mounting import mounted, overlayd, unmount
from support.planting import plant


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


KEEPS_LISTINGS = """
import dataclasses, sys
from overlayd.kernel.cache import CachePolicy
parse = CachePolicy.parse
CachePolicy.parse = lambda text: dataclasses.replace(parse(text), keeps_listings=True)
from overlayd.cli.main import main
main()
"""


def test_a_listing_that_is_kept_is_not_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERLAYD_WIRE", "on")
    source = plant(tmp_path / "source", *(f"dir/file{number}=x" for number in range(50)))
    target = make_target(tmp_path)

    def asked() -> Counter[str]:
        status = json.loads(overlayd("status", "--json", str(target)))["status"]
        return Counter(status["operations"])

    def walk() -> int:
        return len([entry.stat() for entry in os.scandir(target / "dir")])

    words = ("mount", "--cache", "60", "--dir", f"{source}::/", str(target))
    subprocess.run((sys.executable, "-c", KEEPS_LISTINGS, *words), timeout=30, check=True)
    try:
        assert walk() == 50
        once = asked()
        assert once["readdir"] > 0
        assert walk() == 50
        assert asked()["readdir"] == once["readdir"]
        (target / "dir/new").touch()
        assert walk() == 51
        (target / "dir/file7").unlink()
        assert walk() == 50
    finally:
        assert not unmount(target)

"""A mount with the extension and one without: both serve, and the daemon says which is which."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.mounting import mounted, overlayd
from support.planting import plant


@pytest.mark.parametrize(
    ("switch", "said"),
    [("on", "parallel lookups"), ("off", "off (switched off by OVERLAYD_WIRE)")],
)
def test_both_serve(
    switch: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERLAYD_WIRE", switch)
    names = [f"file{number}" for number in range(200)]
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

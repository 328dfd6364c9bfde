"""What is read through the daemon is counted, though it does not look at each request."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from support.live import make_dirs
from support.mounting import mounted
from support.page_cache import forget
from support.processes import attempt, wait_until

MIB = 1 << 20
SIZE = 3 * MIB + 123


def test_what_is_read_is_counted(tmp_path: Path) -> None:
    """Of what is open still, and of what is closed; in memory, and not."""
    (source,) = make_dirs(tmp_path, "source")
    (source / "data").write_bytes(os.urandom(SIZE))
    with mounted(tmp_path, f"{source}::/", options=["--passthrough", "off"]) as top:
        before = reading(top)
        with (top / "data").open("rb", buffering=0) as file:
            while file.read(MIB):
                pass
            requests, data = reading(top)
            assert data == SIZE and requests > before[0]
            os.fsync(file.fileno())
            forget(top / "data")
            forget(source / "data")
            assert len(os.pread(file.fileno(), 4096, MIB)) == 4096
        assert wait_until(lambda: handles(top) == 0)
        again, more = reading(top)
        assert again > requests and more >= SIZE + 4096


def status(top: Path) -> Any:
    """What the daemon of TOP has counted."""
    return json.loads(attempt("status", "--json", str(top)).stdout)["status"]


def reading(top: Path) -> tuple[int, int]:
    """How many requests to read there were at TOP, and how many bytes were read."""
    found = status(top)
    return found["operations"].get("read", 0), found["preopens"][0]["bytes_read"]


def handles(top: Path) -> int:
    """How many files are open at TOP."""
    return int(status(top)["handles"])

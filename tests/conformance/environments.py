"""The trees that behaviours and random sequences run on, each with the process that works in it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conformance.layout import Layout
from support.mounting import mounted

ANSWER_SECONDS = 60
"""No behaviour takes a second; a tree that hangs shows up as this timeout."""

TESTS = Path(__file__).resolve().parents[1]


class Worker:
    """A worker.py process; see `started`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, *request: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self.line())

    def line(self) -> str:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], ANSWER_SECONDS)[0]:
            raise TimeoutError(f"no answer within {ANSWER_SECONDS} s")
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the worker ended before it answered")
        return line


@contextmanager
def started(
    root: Path, binds: Sequence[tuple[str, str, bool]] = (), *, chroot: bool = False
) -> Iterator[Worker]:
    """A worker in the tree ROOT, which it assembles from BINDS in a mount namespace of its own."""
    command = [sys.executable, "-m", "conformance.worker"]
    if binds:
        command = ["unshare", "--mount", "--propagation", "private", "--", *command]
    configuration = {"root": str(root), "binds": binds, "chroot": chroot}
    process = subprocess.Popen(
        [*command, json.dumps(configuration)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    try:
        worker = Worker(process)
        worker.line()
        yield worker
    finally:
        # Its mount namespace goes with it, and with that the bind mounts.
        process.kill()
        process.communicate()


@contextmanager
def overlayd_tree(
    tmp_path: Path, layout: Layout, options: Sequence[str] = ()
) -> Iterator[tuple[Path, Worker]]:
    """LAYOUT through overlayd; yield the directory of its sources and a worker in it."""
    base = tmp_path / "overlayd-sources"
    base.mkdir()
    layout.fill(base)
    with (
        mounted(tmp_path, *layout.arguments(base), options=options) as target,
        started(target) as worker,
    ):
        yield base, worker


@contextmanager
def kernel_tree(
    tmp_path: Path, layout: Layout, *, chroot: bool = False
) -> Iterator[tuple[Path, Worker]]:
    """LAYOUT through bind mounts; yield the directory of its sources and a worker in it."""
    base = tmp_path / f"kernel-sources{'-chroot' if chroot else ''}"
    base.mkdir()
    layout.fill(base)
    layout.make_mount_points(base)
    root = base / "tree"
    root.mkdir()
    binds = [(bind.host, bind.guest, bind.read_only) for bind in layout.binds(base)]
    with started(root, binds, chroot=chroot) as worker:
        yield base, worker

"""overlayd that tells on SIGUSR1 how much it holds: `counting.py ANSWER -- ARGUMENTS…`.

`Vitals` asks it, and /proc: descriptors, memory, threads, tasks, nodes, handles.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import trio

from support.live import daemon_of
from support.processes import wait_until


class Vitals(NamedTuple):
    """What a daemon holds at one moment."""

    descriptors: int
    resident_kib: int
    threads: int
    tasks: int
    nodes: int
    handles: int


class CountedMount:
    """A mount whose daemon can be asked."""

    def __init__(
        self, target: Path, answer: Path, flags: Sequence[str], limit: int | None = None
    ) -> None:
        """LIMIT is that of `ulimit -n`."""
        words = [sys.executable, __file__, str(answer), "--", "mount", *flags, str(target)]
        if limit is not None:
            words = ["sh", "-c", f'ulimit -n {limit} && exec "$@"', "sh", *words]
        environment = dict(os.environ)
        tests = str(Path(__file__).resolve().parents[1])
        environment["PYTHONPATH"] = os.pathsep.join(
            [tests, *filter(None, [environment.get("PYTHONPATH")])]
        )
        subprocess.run(words, check=True, timeout=30, env=environment)
        self._answer = answer
        self.pid = daemon_of(target)

    def vitals(self) -> Vitals:
        """As of now."""
        with suppress(FileNotFoundError):
            self._answer.unlink()
        os.kill(self.pid, signal.SIGUSR1)
        assert wait_until(self._answer.exists)
        process = Path(f"/proc/{self.pid}")
        lines = (process / "status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        return Vitals(
            descriptors=len(os.listdir(process / "fd")),
            resident_kib=int(status["VmRSS"].split()[0]),
            threads=int(status["Threads"]),
            **json.loads(self._answer.read_text()),
        )


def main() -> None:
    answer = Path(sys.argv[1])
    overlay_class: Any = importlib.import_module("overlayd.core.overlay").Overlay
    original = overlay_class.__init__
    overlays: list[Any] = []

    def remember(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        overlays.append(self)

    def tell(number: int, frame: object) -> None:
        space = overlays[0].namespace
        scratch = answer.with_name(f"{answer.name}.new")
        counts = {
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "nodes": len(space.nodes._by_number),
            "handles": len(space.handles),
        }
        scratch.write_text(json.dumps(counts))
        scratch.rename(answer)

    overlay_class.__init__ = remember
    signal.signal(signal.SIGUSR1, tell)
    sys.argv = ["overlayd", *sys.argv[3:]]
    importlib.import_module("overlayd.cli.main").main()


if __name__ == "__main__":
    main()

"""overlayd that tells on SIGUSR1 how much it holds: `counting.py ANSWER NODES -- ARGUMENTS…`.

NODES is how many of them it is to keep at most, 0 for its own limit. `Vitals` asks it, and /proc.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import trio

from support.live import daemon_of
from support.processes import wait_until, with_data_way


class Vitals(NamedTuple):
    """What a daemon holds at one moment."""

    descriptors: int
    resident_kib: int
    threads: int
    tasks: int
    nodes: int
    handles: int
    blocks: int
    """Of memory that Python has given out, for an object each or part of one."""
    c_bytes: int
    """Given out by malloc, to C and to what of Python is large."""


class CountedMount:
    """A mount whose daemon can be asked."""

    def __init__(
        self,
        target: Path,
        answer: Path,
        flags: Sequence[str],
        limit: int | None = None,
        nodes: int = 0,
    ) -> None:
        """LIMIT is that of `ulimit -n`; of NODES at most so many are kept, if given."""
        words = [sys.executable, __file__, str(answer), str(nodes)]
        words += ["--", *with_data_way(("mount", *flags, str(target)))]
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
        assert wait_until(self._is_told)
        process = Path(f"/proc/{self.pid}")
        lines = (process / "status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        return Vitals(
            descriptors=len(os.listdir(process / "fd")),
            resident_kib=int(status["VmRSS"].split()[0]),
            threads=int(status["Threads"]),
            **json.loads(self._answer.read_text()),
        )

    def _is_told(self) -> bool:
        """Ask, and ask again: at the limit of descriptors there is none to answer with."""
        os.kill(self.pid, signal.SIGUSR1)
        return wait_until(self._answer.exists, 1)


def given_out_by_malloc() -> int:
    """Bytes in use of all that malloc has, in every thread's arena (malloc_info(3))."""
    libc = ctypes.CDLL(None)
    libc.fdopen.restype = ctypes.c_void_p
    with open(os.memfd_create("malloc"), "rb") as said:
        stream = ctypes.c_void_p(libc.fdopen(os.dup(said.fileno()), b"w"))
        libc.malloc_info(0, stream)
        libc.fclose(stream)
        said.seek(0)
        totals = said.read().rpartition(b"</heap>")[2].decode()
    sizes = dict(re.findall(r'type="(fast|rest|mmap|current)".* size="(\d+)"', totals))
    held = int(sizes["current"]) + int(sizes["mmap"])
    return held - int(sizes["fast"]) - int(sizes["rest"])


def main() -> None:
    answer, most = Path(sys.argv[1]), int(sys.argv[2])
    if most:
        forgetting: Any = importlib.import_module("overlayd.kernel.forgetting")
        forgetting.MAX_NODES = most
    overlay_class: Any = importlib.import_module("overlayd.core.overlay").Overlay
    original = overlay_class.__init__
    overlays: list[Any] = []

    def remember(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        overlays.append(self)

    def tell(number: int, frame: object) -> None:
        with suppress(OSError):  # no descriptor left: whoever asks will ask again
            tell_all()

    def tell_all() -> None:
        space = overlays[0].namespace
        scratch = answer.with_name(f"{answer.name}.new")
        counts = {
            "tasks": trio.lowlevel.current_statistics().tasks_living,
            "nodes": len(space.nodes._by_number),
            "handles": len(space.handles),
            "blocks": sys.getallocatedblocks(),
            # A dictionary stays as large as it ever was until much is put in again.
            "c_bytes": given_out_by_malloc() - sys.getsizeof(space.nodes._by_number),
        }
        scratch.write_text(json.dumps(counts))
        scratch.rename(answer)

    overlay_class.__init__ = remember
    signal.signal(signal.SIGUSR1, tell)
    sys.argv = ["overlayd", *sys.argv[4:]]
    importlib.import_module("overlayd.cli.main").main()


if __name__ == "__main__":
    main()

"""overlayd as the first process of a PID namespace, as in a container (pid_namespaces(7))."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.live import is_live, make_dirs, make_target
from support.mounting import is_mounted
from support.processes import command, wait_until

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@contextmanager
def as_pid_1(*arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """overlayd with ARGUMENTS as PID 1; what started it, and its process id out here."""
    namespace = ["unshare", "--pid", "--fork", "--kill-child"]
    process = subprocess.Popen([*namespace, *command(*arguments)], stdin=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: len(children(process.pid)) == 1)
        yield process, children(process.pid)[0]
    finally:
        process.kill()
        process.wait(10)


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_unmounts_and_exits_0(tmp_path: Path, number: signal.Signals) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    with as_pid_1("mount", "-f", "--dir", f"{source}::/", str(target)) as (process, pid):
        assert wait_until(lambda: is_live(target))
        os.kill(pid, number)
        assert process.wait(10) == 0
        assert not is_mounted(target)


def test_sigterm_ends_it_before_anything_is_mounted(tmp_path: Path) -> None:
    """Where it has no handler the kernel drops the signal, and stopping takes until SIGKILL."""
    config, target = tmp_path / "overlayd.toml", make_target(tmp_path)
    os.mkfifo(config)  # it waits here for a configuration that nobody writes
    with as_pid_1("mount", "-f", "--config", str(config), str(target)) as (process, pid):
        assert wait_until(lambda: handles(pid, signal.SIGTERM))
        os.kill(pid, signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM
        assert not is_mounted(target)


def handles(pid: int, number: signal.Signals) -> bool:
    (caught,) = (
        line.split()[1]
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("SigCgt:")
    )
    return bool(int(caught, 16) >> (number - 1) & 1)

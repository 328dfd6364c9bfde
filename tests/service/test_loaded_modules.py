"""What each process around a mount has loaded: a probe that runs every few seconds, the commands
that make mounts, and the daemon, which keeps all of it for as long as it lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.live import daemon_of, make_dirs, make_target
from support.processes import attempt, wait_until

ASKING = """
import atexit, sys
file = sys.argv.pop(1)
def tell(*_):
    with open(file, "w") as told:
        print(*sorted(sys.modules), sep="\\n", file=told, flush=True)
atexit.register(tell)
"""
BARE = "tell()"
COMMAND = "from overlayd.cli.main import main; main()"
ON_SIGNAL = "import signal; signal.signal(signal.SIGUSR1, tell)\n"

DISPLAY = {"rich", "prometheus_client"}
COMMAND_LINE = {"click", "overlayd.cli.options", "overlayd.cli.commands"}
CONFIGURATION = {"msgspec", "tomllib"}
LOOP = {"trio", "pyfuse3", "overlayd.kernel.operations", "overlayd.service.lifecycle"}
LEFT_OUT = {
    *("ssl", "_ssl", "hmac", "hashlib", "_hashlib", "importlib.metadata", "email", "zipfile"),
    *("asyncio", "_asyncio"),
}
"""What trio, pyfuse3 and asyncinotify would load, and no daemon uses."""


@pytest.fixture
def answer(tmp_path: Path) -> Path:
    return tmp_path / "modules"


def loaded(answer: Path, code: str, *words: str | Path) -> set[str]:
    """The modules that a process has loaded in its end, which it reaches with status 0."""
    path = os.pathsep.join(filter(None, sys.path))
    subprocess.run(
        [sys.executable, "-c", ASKING + code, str(answer), *words],
        env=os.environ | {"PYTHONPATH": path},
        check=True,
        timeout=30,
    )
    return set(answer.read_text().split())


@contextmanager
def started(answer: Path, *words: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs, and tells ON_SIGNAL; it is ended with the block."""
    path = os.pathsep.join(filter(None, sys.path))
    with subprocess.Popen(
        [sys.executable, "-c", ASKING + ON_SIGNAL + COMMAND, str(answer), *words],
        env=os.environ | {"PYTHONPATH": path},
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def told_by(process: int, answer: Path) -> set[str]:
    """The modules of a live daemon that was started with ON_SIGNAL."""
    answer.unlink(missing_ok=True)
    os.kill(process, signal.SIGUSR1)
    assert wait_until(lambda: answer.exists() and "\nzip" in answer.read_text())
    return set(answer.read_text().split())


def test_a_mount_and_its_probe(tmp_path: Path, answer: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    words = ("mount", "--dir", f"{source}::/", target)
    command = loaded(answer, ON_SIGNAL + COMMAND, *words)
    assert command >= COMMAND_LINE and not command & (LOOP | DISPLAY | CONFIGURATION)

    daemon = daemon_of(target)
    assert wait_until(lambda: "asyncinotify" in told_by(daemon, answer)), "once it is live"
    serving = told_by(daemon, answer)
    assert serving >= LOOP
    assert not serving & (COMMAND_LINE | DISPLAY | CONFIGURATION | LEFT_OUT)

    extra = loaded(answer, COMMAND, "health", target) - loaded(answer, BARE)
    assert extra == {
        *("overlayd", "overlayd.cli", "overlayd.cli.main", "overlayd.errors", "errno"),
        *("overlayd.service", "overlayd.service.health", "overlayd.service.ours"),
        *("overlayd.host", "overlayd.host.mounts", "overlayd.table", "overlayd.table.guest_path"),
    }

    assert attempt("reload", str(target)).returncode == 0
    assert "click" in told_by(daemon, answer), "as soon as it is needed"
    assert attempt("umount", str(target)).returncode == 0


def test_a_daemon_with_a_configuration_file(tmp_path: Path, answer: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    file = tmp_path / "guest.toml"
    file.write_text(f'[[dir]]\nhost = "{source}"\nguest = "/"\n')
    command = loaded(answer, ON_SIGNAL + COMMAND, "mount", "--config", file, target)
    assert command >= CONFIGURATION
    assert not told_by(daemon_of(target), answer) & CONFIGURATION
    assert attempt("umount", str(target)).returncode == 0


def test_in_the_foreground(tmp_path: Path, answer: Path) -> None:
    """The process that was started serves, as systemd wants it, and reads nothing for that."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    file = tmp_path / "guest.toml"
    file.write_text(f'[[dir]]\nhost = "{source}"\nguest = "/"\n')
    with started(answer, "mount", "-f", "--config", file, target) as process:
        assert wait_until(lambda: os.path.ismount(target))
        assert wait_until(lambda: "asyncinotify" in told_by(process.pid, answer))
        serving = told_by(process.pid, answer)
        assert serving >= LOOP
        assert not serving & (COMMAND_LINE | DISPLAY | CONFIGURATION | LEFT_OUT)
        assert not Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        assert attempt("umount", str(target)).returncode == 0
        assert process.wait(10) == 0


def test_run(tmp_path: Path, answer: Path) -> None:
    (source,) = make_dirs(tmp_path, "source")
    command = loaded(answer, COMMAND, "run", "--dir", f"{source}::/", "--", "true")
    assert command >= COMMAND_LINE and not command & (LOOP | DISPLAY | CONFIGURATION)

"""`overlayd run` as PID 1, as a container starts it: it reaps, and no signal has a default.

Each test runs in a PID namespace of its own, made by unshare(1).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.live import make_dirs
from support.processes import command, wait_until

UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_dirs(tmp_path, "source")[0]


def start(source: Path, *words: str) -> subprocess.Popen[str]:
    """`overlayd run -- WORDS` as PID 1, the source at the root."""
    return subprocess.Popen(
        [*UNSHARE, *command("run", "--dir", f"{source}::/", "--", *words)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], status: int = 0) -> str:
    """What it wrote, once it has ended as it should and left nothing."""
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (status, "")
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []
    return out


def pid_one(process: subprocess.Popen[str]) -> int:
    """PID 1 of the namespace, as we number it."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return int(children.read_text().split()[0])


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_it_is_pid_one_and_the_namespace_is_there(source: Path) -> None:
    code = "import os, sys; print(os.getppid(), open(sys.argv[1] + '/file').read())"
    assert finish(start(source, *python(code), "{}")) == "1 source\n"


def test_the_exit_status(source: Path) -> None:
    finish(start(source, "sh", "-c", "exit 77"), 77)
    finish(start(source, "sh", "-c", "kill -KILL $$"), 137)


ORPHANS = """
import os, time
for _ in range(20):
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            os._exit(0)  # an orphan: PID 1 is to reap it
        os._exit(0)
    os.waitpid(child, 0)

def zombies():
    states = []
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            fields = open(f'/proc/{name}/stat').read().rpartition(')')[2].split()
        except OSError:
            continue
        states.append(fields[0] == 'Z')
    return sum(states)

deadline = time.monotonic() + 5
while zombies() and time.monotonic() < deadline:
    time.sleep(0.02)
print(zombies())
"""


def test_orphans_are_reaped(source: Path) -> None:
    assert finish(start(source, *python(ORPHANS))) == "0\n"


def test_an_orphans_end_is_not_the_commands(source: Path) -> None:
    """Reaping somebody else's child must not end the wait for our own."""
    code = "(sh -c 'exit 9' &) ; sleep 0.3; exit 5"
    finish(start(source, "sh", "-c", code), 5)


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGRTMIN],
    ids=lambda number: number.name,
)
def test_signals_reach_the_command(source: Path, tmp_path: Path, number: signal.Signals) -> None:
    """PID 1 has no default action: a signal that it does not take itself is lost."""
    code = (
        "import signal, sys, time\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(42))\n"
        f"open({str(tmp_path / 'up')!r}, 'w').close()\n"
        "time.sleep(20)\n"
    )
    process = start(source, *python(code))
    assert wait_until((tmp_path / "up").exists)
    os.kill(pid_one(process), number)
    finish(process, 42)


def test_a_command_without_a_handler_ends(source: Path, tmp_path: Path) -> None:
    """As a container's stop wants it: the command is not PID 1 and has its default action."""
    process = start(source, "sh", "-c", f"touch {tmp_path}/up; exec sleep 20")
    assert wait_until((tmp_path / "up").exists)
    os.kill(pid_one(process), signal.SIGTERM)
    finish(process, 128 + signal.SIGTERM)


def test_what_the_command_leaves_behind_ends_with_it(source: Path, tmp_path: Path) -> None:
    """The kernel ends the namespace with its PID 1, which goes as soon as the command has."""
    code = f"sleep 1000 & echo $! > {tmp_path}/left; cd {{}} && sleep 1000 & exit 3"
    finish(start(source, "sh", "-c", code), 3)

"""`overlayd run` on a terminal: what is typed reaches COMMAND as if it had been started directly.

A real interactive shell with job control runs on a pseudo-terminal; the tests type and read.
"""

from __future__ import annotations

import os
import pty
import re
import select
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.live import make_dirs
from support.mounting import mount_points
from support.processes import command, ends, wait_until

SECONDS = 20.0
PROMPT = "ready> "
INTERRUPT, SUSPEND, END_OF_FILE = b"\x03", b"\x1a", b"\x04"


class Terminal:
    """A shell on a pseudo-terminal."""

    def __init__(self) -> None:
        environment = {**os.environ, "PS1": PROMPT, "TERM": "dumb"}
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            shell = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
            os.execvpe(shell[0], shell, environment)
        self._seen = ""
        self.expect(re.escape(PROMPT))
        self.enter("stty -echo")

    def type(self, keys: bytes) -> None:
        os.write(self._fd, keys)

    def enter(self, line: str) -> str:
        """Type a line; what was written until the shell asks for the next."""
        self.type(line.encode() + b"\n")
        return self.expect(re.escape(PROMPT))

    def expect(self, pattern: str) -> str:
        """Read on until PATTERN is there; what came before it is consumed with it."""
        deadline = time.monotonic() + SECONDS
        while (found := re.search(pattern, self._seen)) is None:
            wait = max(deadline - time.monotonic(), 0)
            assert select.select([self._fd], [], [], wait)[0], (pattern, self._seen)
            self._seen += os.read(self._fd, 65536).decode(errors="replace")
        before = self._seen[: found.end()]
        self._seen = self._seen[found.end() :]
        return before

    def foreground(self) -> None:
        """Bring the job back, and wait until what is typed is the job's to read."""
        self.type(b"fg\n")
        assert wait_until(lambda: os.tcgetpgrp(self._fd) != self.pid)

    def close(self) -> None:
        os.close(self._fd)  # hangs the terminal up
        if not ends(self.pid, 5):
            os.kill(self.pid, signal.SIGKILL)
            assert ends(self.pid)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal()
    yield opened
    opened.close()
    temporary = Path(os.environ["TMPDIR"])
    assert wait_until(lambda: list(temporary.iterdir()) == [])
    assert [point for point in mount_points() if point.startswith(f"{temporary}/")] == []


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_dirs(tmp_path, "source")[0]


def run(source: Path, *words: str) -> str:
    """The line to type."""
    return shlex.join(command("run", "--dir", f"{source}::/", "--", *words))


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


COUNTING = """
import signal
signals = {signal.SIGINT, signal.SIGQUIT}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
print('up', flush=True)
while (info := signal.sigtimedwait(signals, 1)) is not None and info.si_signo == signal.SIGINT:
    print('got', info.si_pid, flush=True)
print('no more', flush=True)
"""
"""Says of each SIGINT who sent it; 0 is the kernel."""


def test_it_is_in_the_foreground(terminal: Terminal, source: Path) -> None:
    code = (
        "import os; print('fg', os.tcgetpgrp(0) == os.getpgrp(), [os.isatty(n) for n in (0, 1, 2)])"
    )
    assert "fg True [True, True, True]" in terminal.enter(run(source, *python(code)))


def test_it_reads_what_is_typed(terminal: Terminal, source: Path) -> None:
    terminal.type(run(source, "sh", "-c", "echo go; read line; echo heard $line").encode() + b"\n")
    terminal.expect("go\r\n")
    terminal.type(b"hello\n")
    terminal.expect("heard hello\r\n")
    terminal.expect(PROMPT)


def test_ctrl_c_comes_once(terminal: Terminal, source: Path) -> None:
    """The kernel tells the whole group; passing it on would make two of one."""
    terminal.type(run(source, *python(COUNTING)).encode() + b"\n")
    terminal.expect("up\r\n")
    for _ in range(5):
        terminal.type(INTERRUPT)
        assert terminal.expect("got 0\r\n").count("got") == 1
        time.sleep(0.05)
    assert "got" not in terminal.expect("no more\r\n")
    terminal.expect(PROMPT)


def test_ctrl_c_ends_what_does_not_handle_it(terminal: Terminal, source: Path) -> None:
    terminal.type(run(source, "sh", "-c", "echo up; exec sleep 30").encode() + b"\n")
    terminal.expect("up\r\n")
    terminal.type(INTERRUPT)
    terminal.expect(PROMPT)
    assert "status 130" in terminal.enter("echo status $?")


STOPPABLE = ["sh", "-c", "echo up; read line; echo heard $line; cat $OVERLAYD_TARGET/file"]


def test_ctrl_z_and_fg(terminal: Terminal, source: Path) -> None:
    """The shell sees the job stop, and gets it going again with its mount still there."""
    terminal.type(run(source, *STOPPABLE).encode() + b"\n")
    terminal.expect("up\r\n")
    terminal.type(SUSPEND)
    assert "Stopped" in terminal.expect(PROMPT)
    assert "Stopped" in terminal.enter("jobs")
    terminal.foreground()
    terminal.type(b"again\n")
    terminal.expect("heard again\r\nsource")
    terminal.expect(PROMPT)
    assert "status 0" in terminal.enter("echo status $?")


def test_a_command_that_ignores_ctrl_z_goes_on(terminal: Terminal, source: Path) -> None:
    """We stop when the command stops, and not before: it may tidy up, or not stop at all."""
    code = "trap '' TSTP; echo up; sleep 0.5; echo went on"
    terminal.type(run(source, "sh", "-c", code).encode() + b"\n")
    terminal.expect("up\r\n")
    terminal.type(SUSPEND)
    assert "Stopped" not in terminal.expect("went on\r\n")
    terminal.expect(PROMPT)


@pytest.mark.parametrize("name", ["STOP", "TSTP"])
def test_a_command_that_stops_itself(terminal: Terminal, source: Path, name: str) -> None:
    code = f"kill -{name} $$; echo continued; exit 7"
    assert "Stopped" in terminal.enter(run(source, "sh", "-c", code))
    assert "continued" in terminal.enter("fg")
    assert "status 7" in terminal.enter("echo status $?")


def test_in_the_background_reading_stops_it(terminal: Terminal, source: Path) -> None:
    """SIGTTIN, which a shell reports as a job that wants the terminal."""
    terminal.enter(run(source, *STOPPABLE) + " &")
    assert wait_until(lambda: "Stopped" in terminal.enter("jobs"))
    terminal.foreground()
    terminal.type(b"now\n")
    terminal.expect("heard now\r\nsource")
    terminal.expect(PROMPT)


def test_in_a_pipeline(terminal: Terminal, source: Path) -> None:
    """Its neighbours keep the terminal: the command gets no process group of its own."""
    line = run(source, "cat", "{}/file") + " | (cat; read line < /dev/tty; echo; echo heard $line)"
    terminal.type(line.encode() + b"\n")
    terminal.expect("source")
    terminal.type(b"typed\n")
    terminal.expect("heard typed\r\n")
    terminal.expect(PROMPT)


def test_an_interactive_shell_as_the_command(terminal: Terminal, source: Path) -> None:
    """It has job control of its own, and gives the terminal back when it ends or is suspended."""
    inner = run(source, "env", "PS1=inner> ", "bash", "--norc", "--noprofile", "--noediting", "-i")
    terminal.type(inner.encode() + b"\n")
    terminal.expect("inner> ")
    terminal.type(b"sh -c 'echo asleep; exec sleep 30'\n")
    terminal.expect("asleep\r\n")
    terminal.type(SUSPEND)
    assert "Stopped" in terminal.expect("inner> ")
    terminal.type(b"kill -KILL %1; suspend\n")
    assert "Stopped" in terminal.expect(PROMPT)
    terminal.foreground()
    terminal.expect("inner> ")
    terminal.type(b"exit 4\n")
    terminal.expect(PROMPT)
    assert "status 4" in terminal.enter("echo status $?")


def test_hanging_up_ends_it(source: Path, tmp_path: Path) -> None:
    """The terminal goes: COMMAND is told by SIGHUP, and the mount does not stay."""
    opened = Terminal()
    code = f"trap 'touch {tmp_path}/hup; exit 1' HUP; echo up; while :; do sleep 0.1; done"
    opened.type(run(source, "sh", "-c", code).encode() + b"\n")
    opened.expect("up\r\n")
    opened.close()
    assert wait_until((tmp_path / "hup").exists)
    assert wait_until(lambda: list(Path(os.environ["TMPDIR"]).iterdir()) == [])

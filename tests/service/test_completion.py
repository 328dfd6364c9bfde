"""The Tab key in bash, zsh and fish, pressed on a terminal, and what every option offers it."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest

from overlayd.cli.commands import cli
from support.live import make_dirs
from support.mounting import mounted
from support.processes import wait_until

COMPLETIONS = Path(__file__).parents[2] / "completions"
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ["PS1='READY> '", "source {overlayd.bash}"]),
    "zsh": (
        ["zsh", "-f", "-i"],
        ["PS1='READY> '; bindkey -e; autoload -U compinit; compinit -u", "source {_overlayd}"],
    ),
    "fish": (
        ["fish", "--no-config", "-i"],
        ["function fish_prompt; echo -n 'READY> '; end", "source {overlayd.fish}"],
    ),
}
TAB, LINE_START = "\t", "\x01"

every_shell = pytest.mark.parametrize("shell", SHELLS)


@pytest.fixture
def bin_directory(tmp_path: Path) -> Path:
    """`overlayd`, as a shell finds it, and `show`, which writes its arguments to a file."""
    place = tmp_path / "bin"
    place.mkdir()
    path = shlex.quote(os.pathsep.join(os.path.abspath(p) for p in sys.path))
    (place / "overlayd").write_text(
        f'#!/bin/sh\nPYTHONPATH={path} exec {shlex.quote(sys.executable)} -m overlayd "$@"\n'
    )
    shown = shlex.quote(str(tmp_path / "shown"))
    (place / "show").write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >{shown}.new && mv {shown}.new {shown}\n'
    )
    for script in place.iterdir():
        script.chmod(0o755)
    return place


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, shell: str, place: Path) -> None:
        words, setup = SHELLS[shell]
        assert shutil.which(words[0]), f"{words[0]} is missing: tools/install-packages installs it"
        self._shown = place / "shown"
        self._said = b""
        environment = {
            "PATH": f"{place / 'bin'}:{os.environ['PATH']}",
            "HOME": str(place),
            "TERM": "xterm",
            "LC_ALL": "C.UTF-8",
            "OVERLAYD_RUNTIME_DIR": os.environ["OVERLAYD_RUNTIME_DIR"],
        }
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(place)
            os.execvpe(words[0], words, environment)
        for line in setup:
            for script in COMPLETIONS.iterdir():
                line = line.replace(f"{{{script.name}}}", shlex.quote(str(script)))
            self._enter(line)

    def _enter(self, line: str) -> None:
        """Type a line, and wait for the prompt after it."""
        self._said = b""
        os.write(self._fd, f"{line}; echo DO''NE\n".encode())
        assert self._hears(b"DONE"), self._said
        assert self._hears(b"READY> "), self._said

    def _hears(self, words: bytes, seconds: float = 10) -> bool:
        deadline = time.monotonic() + seconds
        while words not in self._said.rpartition(b"DONE")[1 if words == b"DONE" else 2]:
            if not select.select([self._fd], [], [], max(deadline - time.monotonic(), 0))[0]:
                return False
            self._said += os.read(self._fd, 65536)
        return True

    def completed(self, keys: str) -> list[str]:
        """The words that stand on the line once KEYS are typed, the command's name left out."""
        self._shown.unlink(missing_ok=True)
        os.write(self._fd, f"{keys}{LINE_START}show \n".encode())
        if not wait_until(self._shown.exists):
            self._hears(b"nothing more", 0.1)
            pytest.fail(f"the line was never run: {self._said!r}")
        self._hears(b"READY> ", 0.2)
        return [word.rstrip("/") for word in self._shown.read_text().splitlines()[1:]]

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        with suppress(OSError):
            os.close(self._fd)


@pytest.fixture
def terminal(tmp_path: Path, shell: str, bin_directory: Path) -> Iterator[Terminal]:
    found = Terminal(shell, tmp_path)
    yield found
    found.close()


@every_shell
def test_the_tab_key(terminal: Terminal, tmp_path: Path) -> None:
    make_dirs(tmp_path, "application")
    (tmp_path / "guest.toml").touch()
    expected = {
        f"overlayd exp{TAB}": ["explain"],
        f"overlayd --vers{TAB}": ["--version"],
        f"overlayd check --sym{TAB}verb{TAB}": ["check", "--symlinks", "verbatim"],
        f"overlayd check --alias=ref{TAB}": ["check", "--alias=refuse"],
        f"overlayd check --config=gue{TAB}": ["check", "--config=guest.toml"],
        f"overlayd check --cache coh{TAB}": ["check", "--cache", "coherent"],
        f"overlayd mount -o ro,noat{TAB}": ["mount", "-o", "ro,noatime"],
        f"overlayd check --conf{TAB}gue{TAB}": ["check", "--config", "guest.toml"],
        f"overlayd check --dir appl{TAB}": ["check", "--dir", "application"],
        f"overlayd check --dir .::/x::ro --stri{TAB}": ["check", "--dir", ".::/x::ro", "--strict"],
        f"overlayd check --dir a::/lib::ro{TAB}": ["check", "--dir", "a::/lib::ro"],
    }
    assert {keys: terminal.completed(keys) for keys in expected} == expected


@every_shell
def test_targets_are_those_of_live_mounts(terminal: Terminal, tmp_path: Path) -> None:
    (source,) = make_dirs(tmp_path, "source")
    with mounted(tmp_path, f"{source}::/") as target:
        start = str(target)[:-3]
        for name in ("umount", "health"):
            assert terminal.completed(f"overlayd {name} {start}{TAB}") == [name, str(target)]


def parameters() -> Iterator[tuple[str, click.Command, click.Parameter]]:
    """Every parameter of every command that takes a value."""
    with click.Context(cli) as context:
        for name in cli.list_commands(context):
            command = cli.get_command(context, name)
            assert command is not None
            for parameter in command.params:
                if not getattr(parameter, "is_flag", False):
                    yield name, command, parameter


FREE = {"seconds", "paths"}
"""Numbers, and guest paths: nobody can tell what is meant."""


def test_every_value_has_a_completion() -> None:
    """Also of commands that are added later: give them `shell_complete=completion...`."""
    for name, command, parameter in parameters():
        if parameter.name not in FREE:
            with click.Context(command) as context:
                offered = parameter.shell_complete(context, "")
            assert offered, f"{name}: nothing completes {parameter.human_readable_name}"


def test_the_list_of_commands_loads_none_of_them() -> None:
    """Tab is to answer at once, so what only a mount needs is not imported."""
    code = (
        "import sys; from overlayd.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(*sorted(m for m in sys.modules if m in ('trio', 'pyfuse3', 'msgspec', 'rich')))"
    )
    words = {"COMP_WORDS": "overlayd ", "COMP_CWORD": "1", "_OVERLAYD_COMPLETE": "bash_complete"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | words | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    *offered, loaded = done.stdout.splitlines()
    assert {"plain,mount", "plain,check", "plain,health"} <= set(offered)
    assert loaded == ""

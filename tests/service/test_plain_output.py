"""No colours, no escapes of any kind, where a program or somebody who said NO_COLOR reads.

Every command there is, found in the command line itself: with --help, wrongly called, and used.
"""

from __future__ import annotations

import os
import pty
import select
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click
import pytest

from overlayd.cli.commands import cli
from support.live import make_dirs, make_target
from support.mounting import overlayd
from support.processes import command

ESCAPE = b"\x1b"


def names() -> list[str]:
    with click.Context(cli) as context:
        return cli.list_commands(context)


def uses(place: Path) -> list[list[str]]:
    """Command lines that say something: help, complaints, and every command that reports."""
    table = ["--dir", f"{place}/app::/", "--dir", f"{place}/app/sub::/other::ro"]
    target = str(place / "target")
    real = {
        "check": [table, [*table, "--json"]],
        "explain": [[*table, "/file", "/other"], [*table, "--json", "/"]],
        "health": [[target]],
        "status": [[], [target], ["--json"], ["--metrics"]],
        "reload": [[target]],
        "run": [[*table, "--", "true"]],
    }
    found = [["--help"], ["--version"], []]
    for name in names():
        found += [[name, "--help"], [name, "--no-such-option"]]
        found += [[name, *words] for words in real.get(name, [])]
    return found


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_dirs(tmp_path, "app", "app/sub")
    make_target(tmp_path)
    return tmp_path


def piped(words: Sequence[str]) -> bytes:
    done = subprocess.run(
        command(*words),
        env=os.environ | {"TERM": "xterm-256color", "COLORTERM": "truecolor"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=30,
        check=False,
    )
    return done.stdout


def on_terminal(words: Sequence[str], **environment: str) -> bytes:
    """What a command prints on a terminal that can show colours."""
    ours, its = pty.openpty()
    inherited = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    process = subprocess.Popen(
        command(*words),
        env=inherited | {"TERM": "xterm-256color", **environment},
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    said = b""
    deadline = time.monotonic() + 30
    with suppress(OSError):  # EIO: nobody has the other end any more
        while select.select([ours], [], [], max(deadline - time.monotonic(), 0))[0]:
            said += os.read(ours, 65536)
    os.close(ours)
    process.kill()
    process.wait()
    return said


def test_nothing_but_text(place: Path) -> None:
    target = place / "target"
    overlayd("mount", "--dir", f"{place}/app::/", str(target))
    try:
        for words in uses(place):
            said = on_terminal(words, NO_COLOR="1")
            assert said or words[0] in ("health", "run", "reload"), words
            assert ESCAPE not in said, words
            if "--help" not in words and "--no-such-option" not in words:
                assert ESCAPE not in piped(words), words
    finally:
        overlayd("umount", str(target))

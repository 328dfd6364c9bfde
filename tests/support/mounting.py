"""Real overlayd mounts for tests: made and unmade through the command line, and checked.

A test that uses `mounted` also tests that the mount goes away, that nothing is left in the
mount table, and that the daemon logged no traceback.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.processes import command

COMMAND_SECONDS = 30
"""`mount` and `umount` take a fraction of a second; a daemon that keeps our pipes open, or a
mount that hangs, shows up as this timeout rather than as a test run that never ends."""


@contextmanager
def mounted(tmp_path: Path, *dirs: str, options: Sequence[str] = ()) -> Iterator[Path]:
    """Mount the preopens DIRS (`HOST::GUEST[::ro]`) below TMP_PATH; yield the target."""
    target = Path(tempfile.mkdtemp(prefix="target-", dir=tmp_path))
    log = Path(f"{target}.log")
    flags = [word for entry in dirs for word in ("--dir", entry)]
    try:
        overlayd("mount", *flags, "--log-file", str(log), *options, str(target))
        if not is_mounted(target):
            pytest.fail(f"`overlayd mount` succeeded, and {target} is not mounted")
        yield target
    finally:
        problems = [*unmount(target), *tracebacks(log)]
        if problems:
            pytest.fail("\n".join(problems))


def overlayd(*arguments: str) -> str:
    """Run an overlayd command that must succeed; return its standard output."""
    try:
        done = subprocess.run(
            command(*arguments),
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        pytest.fail(f"`overlayd {arguments[0]}` did not return within {COMMAND_SECONDS} s")
    if done.returncode:
        pytest.fail(f"`overlayd {' '.join(arguments)}`: status {done.returncode}\n{done.stderr}")
    return done.stdout


def unmount(target: Path) -> list[str]:
    """Unmount TARGET, by force where overlayd cannot; return what went wrong."""
    if not is_mounted(target):
        # Either `mount` failed, which is being reported, or the daemon died in the test.
        return [] if sys.exc_info()[1] else [f"{target} was unmounted before the test ended"]
    problems: list[str] = []
    try:
        overlayd("umount", str(target))
    except pytest.fail.Exception as failure:
        problems.append(str(failure))
    if is_mounted(target):
        problems.append(f"{target} is still mounted after `overlayd umount`")
        detach(target)
    return problems


def detach(target: Path) -> None:
    """Take everything off TARGET, however often and however dead it is mounted."""
    while is_mounted(target):
        subprocess.run(["umount", "-l", str(target)], timeout=COMMAND_SECONDS, check=True)


def tracebacks(log: Path) -> list[str]:
    """The daemon's log, where it holds a traceback: a handler failed in a way nobody planned."""
    text = log.read_text(errors="replace") if log.exists() else ""
    return [f"a traceback in the daemon's log:\n{text}"] if "Traceback" in text else []


def is_mounted(target: Path) -> bool:
    """Whether TARGET is a mount point, asked without touching it: a dead mount may hang."""
    return str(target.parent.resolve() / target.name) in mount_points()


def mount_points() -> set[str]:
    """Every mount point in this mount namespace."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {unescape(line.split()[4]) for line in lines}


def unescape(field: str) -> str:
    """Undo mountinfo's octal escapes for blanks and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)

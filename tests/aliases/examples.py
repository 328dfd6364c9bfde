"""Runs the examples of a page: the `console` blocks, in order, in one directory."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def rendered(page: str, place: Path) -> str:
    """PAGE with the output of its examples replaced by what the commands print now."""
    return _BLOCK.sub(lambda block: f"```console\n{_run_block(block[1], place)}```", page)


def _run_block(block: str, place: Path) -> str:
    said = ""
    for line in block.splitlines():
        if line.startswith("$ "):
            said += f"{line}\n{_run(line[2:], place)}"
    return said


def _run(command: str, place: Path) -> str:
    """What COMMAND prints, on either stream; a blank line of its own at the end is left out."""
    overlayd = f'overlayd() {{ {shlex.quote(sys.executable)} -m overlayd "$@"; }}'
    done = subprocess.run(
        ["bash", "-c", f"{overlayd}\n{command}"],
        cwd=place,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.replace(f"{place.resolve()}/", "/srv/")  # as if they were typed there

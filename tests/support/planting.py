"""Host trees for tests, written down in one line each."""

from __future__ import annotations

import os
from pathlib import Path


def plant(base: Path, *entries: str) -> Path:
    """Make BASE and, in it, each of ENTRIES: `dir/`, `file=content` or `link->target`.

    Modes are 0755 and 0644, whatever the umask.
    """
    before = os.umask(0o022)
    try:
        base.mkdir(parents=True, exist_ok=True)
        for entry in entries:
            _plant_one(base, entry)
    finally:
        os.umask(before)
    return base


def _plant_one(base: Path, entry: str) -> None:
    if "->" in entry:
        name, _, target = entry.partition("->")
        _parent(base / name).symlink_to(target)
    elif entry.endswith("/"):
        (base / entry).mkdir(parents=True, exist_ok=True)
    else:
        name, _, content = entry.partition("=")
        _parent(base / name).write_text(content)


def _parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path

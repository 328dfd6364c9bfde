"""The machine that figures come from: without it they say little."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import TOP
from benchmarks.subjects import Recipe, version_of


def describe(file_system: str, recipes: list[Recipe]) -> dict[str, object]:
    """Everything that figures depend on, besides the sizes."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "system": _system(),
        "python": platform.python_version(),
        "libfuse": _libfuse(),
        "file_system": file_system,
        "load_before": [round(load, 2) for load in os.getloadavg()],
        "subjects": {recipe.name: version_of(recipe) for recipe in recipes},
        "notes": {recipe.name: recipe.note for recipe in recipes},
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("model name", "Model")):
            return line.partition(":")[2].strip()
    return platform.machine()


def _system() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")


def _libfuse() -> str:
    """Of the one that pyfuse3 was built with."""
    return _said("pkg-config", "--modversion", "fuse3") or "unknown"


def _commit() -> str:
    return _said("git", "-C", str(TOP), "describe", "--always", "--dirty") or "unknown"


def _said(*words: str) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=10)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()

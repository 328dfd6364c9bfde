"""What the runtime tests and the demo need beyond Python: WASI guests and two wasmtimes.

Everything lands below build/ in the repository, is made only when missing, by one process at a
time, and appears under its final name by one rename, so that an interrupted run leaves nothing half
made.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / "build"
GUEST_SOURCES = REPOSITORY / "tests" / "guests"

COMPILE = ["clang-14", "--target=wasm32-wasi", "-O2", "-s", "-Wall", "-Wextra", "-Werror"]
DEBIAN_PACKAGES = "clang-14 lld-14 wasi-libc libclang-rt-14-dev-wasm32"

VULNERABLE = "45.0.0"
"""A wasmtime that is open to RUSTSEC-2026-0188, which 45.0.3 and 46.0.1 mend."""
NEWEST = "newest"
"""Whatever the package index offered when build/ was first filled."""


class ToolchainError(RuntimeError):
    """A tool is missing or failed; the message says which and what would mend it."""


def guest(name: str) -> Path:
    """Compile tests/guests/NAME.c unless that very text is compiled already."""
    source = GUEST_SOURCES / f"{name}.c"
    recipe = source.read_bytes() + "\0".join(COMPILE).encode()
    place = BUILD / "guests" / hashlib.sha256(recipe).hexdigest()[:16]
    module = f"{name}.wasm"

    def compile_it(scratch: Path) -> None:
        if shutil.which(COMPILE[0]) is None:
            raise ToolchainError(f"{COMPILE[0]} not found: apt-get install {DEBIAN_PACKAGES}")
        _run([*COMPILE, "-o", str(scratch / module), str(source)])

    return make_once(place, compile_it) / module


def wasmtime_package(version: str) -> Path:
    """Install one version of the `wasmtime` package; return what to put on sys.path for it."""
    requirement = "wasmtime" if version == NEWEST else f"wasmtime=={version}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]

    def install(scratch: Path) -> None:
        _run([*pip, "--target", str(scratch), requirement])

    return make_once(BUILD / f"wasmtime-{version}", install)


def installed_version(place: Path) -> str:
    """The version of the wasmtime package below PLACE: what NEWEST stands for."""
    for distribution in distributions(name="wasmtime", path=[str(place)]):
        return distribution.version
    raise ToolchainError(f"no wasmtime in {place}: remove that directory and try again")


def make_once(place: Path, make: Callable[[Path], None]) -> Path:
    """PLACE, which MAKE fills as a scratch directory where it is missing; others wait for that."""
    if not place.exists():
        BUILD.mkdir(exist_ok=True)
        with (BUILD / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                with appearing_at(place) as scratch:
                    make(scratch)
    return place


@contextmanager
def appearing_at(place: Path) -> Iterator[Path]:
    """A scratch directory that becomes PLACE when the body succeeds and vanishes otherwise."""
    place.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        yield scratch
        # mkdtemp's 0700 would lock out a later run as another user.
        scratch.chmod(0o755)
        try:
            scratch.rename(place)
        except OSError:
            # Somebody else was faster, and theirs is as good as ours.
            if not place.is_dir():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise ToolchainError(f"{' '.join(command)}: status {done.returncode}\n{done.stderr}")

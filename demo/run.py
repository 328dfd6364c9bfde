#!/usr/bin/env python3
"""Show what a WASI guest sees of several preopens, without overlayd and with it.

`make demo` prepares what this needs and calls it. Everything is real: guests compiled from C,
wasmtime in the newest version and in one that is open to RUSTSEC-2026-0188, node:wasi where
there is a node, and `overlayd run`. The exit status is 1 if overlayd did not keep a promise or
left a mount behind.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from support import toolchain
from support.runtimes import (
    NODE,
    WASMTIME_NEWEST,
    WASMTIME_VULNERABLE,
    GuestError,
    Runtime,
    probe_arguments,
)

SETTINGS = "as configured"
SOURCES = {
    "app/main": "the program",
    "app/docs/manual": "read me",
    "app/lib/x": "the app's own lib/x",
    "lib/x": "the mounted lib/x",
    "app/config/settings": SETTINGS,
    "data/notes": "notes",
    "private/key": "a host secret",
}
PREOPENS = {"/": "app", "/lib": "lib", "/config": "app/config", "/data": "data"}
READ_ONLY = "/config"

COLUMNS = (16, 33, 20, 21)
RED, GREEN, BOLD, PLAIN = "\033[31m", "\033[32m", "\033[1m", "\033[0m"


@dataclass(frozen=True)
class Question:
    """Something a guest does, what is shown of the outcome, and what overlayd promises."""

    text: str
    runtime: Runtime
    guest: str
    arguments: list[str]
    outcome: Callable[[Path, list[str]], str]
    promise: str


def last_answer(_: Path, lines: list[str]) -> str:
    """What the probe guest said last, readably."""
    return unquote(lines[-1].removeprefix("ok "))


def listing(_: Path, lines: list[str]) -> str:
    """The names of a listing, sorted."""
    names = [entry.partition(":")[0] for entry in lines[-1].split()[1:]]
    return " ".join(sorted(name for name in names if name not in {".", ".."}))


def settings_on_host(root: Path, _: list[str]) -> str:
    """What the host finds in the file that the guest may only read."""
    text = (root / "app/config/settings").read_text()
    return "untouched" if text == SETTINGS else f"OVERWRITTEN: {text}"


def ask(text: str, promise: str, *commands: str, runtime: Runtime = WASMTIME_NEWEST) -> Question:
    """A question whose answer is the probe guest's last one."""
    return Question(text, runtime, "probe", probe_arguments(commands), last_answer, promise)


def exploit(method: str, text: str) -> Question:
    """RUSTSEC-2026-0188 in one of its two forms."""
    arguments = [method, "/config/settings", "/data/alias", "EVIL"]
    return Question(text, WASMTIME_VULNERABLE, "exploit", arguments, settings_on_host, "untouched")


def overwrite(path: str, remark: str) -> Question:
    """A write to the read-only file by another way that leads to it."""
    text, arguments = f"writes to {path}, {remark}", probe_arguments([f"write {path} EVIL"])
    return Question(text, WASMTIME_NEWEST, "probe", arguments, settings_on_host, "untouched")


def questions() -> Iterator[tuple[str, list[Question]]]:
    """Every question, under the heading of what it is about."""
    mounted = SOURCES["lib/x"]
    listed = "config data docs latest lib main"
    yield (
        "One path, one file (wasmtime issue 13544)",
        [
            ask('open("/lib/x")', mounted, "read /lib/x"),
            ask('openat(open("/"), "lib/x")', mounted, "open r / rd", "read @r:lib/x"),
            ask('open("/docs/../lib/x")', mounted, "read /docs/../lib/x"),
            ask('open("/lib/../main")', SOURCES["app/main"], "read /lib/../main"),
            ask("the link /latest -> /lib/x", mounted, "read /latest"),
        ],
    )
    ls = Question("ls /", WASMTIME_NEWEST, "probe", probe_arguments(["list /"]), listing, listed)
    yield "Complete listings (wasmtime issue 6396)", [ls]
    yield (
        "A read-only file stays read-only: /config/settings on the host, after the guest",
        [
            exploit("link", "links it into /data and writes there (RUSTSEC-2026-0188)"),
            exploit("rename", "links it, renames the link into /data and writes there (the same)"),
            overwrite("/docs/../config/settings", "which app shows as well"),
            overwrite("/data/hard-link", "a name that the host had made"),
        ],
    )
    if shutil.which("node"):
        steps = ["symlink .. /up", "read /up/private/key"]
        escape = ask(
            "makes the link /up -> .. and reads a key there", "error ENOENT", *steps, runtime=NODE
        )
        yield "No way out", [escape]
    else:
        yield "No node on this machine: nothing is shown of node:wasi", []


def main() -> int:
    """Ask everything twice, print the answers side by side."""
    mounts_before = fuse_mounts()
    broken = 0
    try:
        print_introduction()
        for heading, group in questions():
            print(f"\n{BOLD if colourful() else ''}{heading}{PLAIN if colourful() else ''}")
            broken += sum(not show(question) for question in group)
    except toolchain.ToolchainError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    left = fuse_mounts() - mounts_before
    print(f"\nPromises broken: {broken}. Mounts left behind: {len(left)}.")
    return 1 if broken or left else 0


def show(question: Question) -> bool:
    """Ask one question in both ways and print its row; whether overlayd kept its promise."""
    before, after = without_overlayd(question), with_overlayd(question)
    kept = after == question.promise
    if not kept:
        after += f" (PROMISED: {question.promise})"
    row = (question.runtime.name, question.text, before, after)
    print_row(row, ("", "", "" if before == question.promise else RED, GREEN if kept else RED))
    return kept


def without_overlayd(question: Question) -> str:
    """The outcome where the runtime is given every preopen."""
    with scene() as root:
        return run(question, [preopen(root, guest, question) for guest in PREOPENS], [], root)


def with_overlayd(question: Question) -> str:
    """The outcome where the runtime is given one directory, by `overlayd run`."""
    with scene() as root:
        launcher = [sys.executable, "-m", "overlayd", "run", "--errors", "wasi"]
        for guest, source in PREOPENS.items():
            read_only = "::ro" if guest == READ_ONLY else ""
            launcher += ["--dir", f"{root}/{source}::{guest}{read_only}"]
        return run(question, ["--dir={}::/"], [*launcher, "--"], root)


def preopen(root: Path, guest: str, question: Question) -> str:
    """The runtime's own option for one preopen; node has none that is read-only."""
    limited = guest == READ_ONLY and question.runtime != NODE
    return f"{'--ro-files' if limited else '--dir'}={root}/{PREOPENS[guest]}::{guest}"


def run(question: Question, options: list[str], launcher: list[str], root: Path) -> str:
    """Run the question's guest and say what came of it."""
    try:
        lines = question.runtime.run(question.guest, question.arguments, options, launcher)
    except GuestError as error:
        return f"FAILED: {str(error).strip().splitlines()[-1]}"
    return question.outcome(root, lines)


@contextmanager
def scene() -> Iterator[Path]:
    """A fresh set of host directories, for one run."""
    with tempfile.TemporaryDirectory(prefix="overlayd-demo-") as name:
        root = Path(name)
        for path, text in SOURCES.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        (root / "app/latest").symlink_to("/lib/x")
        (root / "data/hard-link").hardlink_to(root / "app/config/settings")
        yield root


def print_introduction() -> None:
    """Say what is compared, and with which runtimes."""
    newest = toolchain.installed_version(toolchain.wasmtime_package(toolchain.NEWEST))
    flags = " ".join(f"{source}::{guest}" for guest, source in PREOPENS.items())
    print(
        f"A guest gets four host directories: {flags}\n"
        f"(app has a lib of its own; app/config is read-only). wasmtime-newest is {newest}.\n\n"
        "BEFORE: the runtime is given each of them, with an option of its own.\n"
        "AFTER:  overlayd run --dir ... -- RUNTIME --dir {}::/ GUEST\n"
    )
    print_row(("", "what the guest does", "BEFORE", "AFTER"), (BOLD,) * len(COLUMNS))


def print_row(cells: Sequence[str], colours: Sequence[str]) -> None:
    """Print cells side by side, each wrapped to its column."""
    columns = [
        textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, COLUMNS, strict=True)
    ]
    for line in itertools.zip_longest(*columns, fillvalue=""):
        padded = [cell.ljust(width) for cell, width in zip(line, COLUMNS, strict=True)]
        if colourful():
            padded = [f"{on}{cell}{PLAIN}" for on, cell in zip(colours, padded, strict=True)]
        print(" | ".join(padded).rstrip())


def colourful() -> bool:
    """Whether colours are wanted: on a terminal, unless https://no-color.org says no."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def fuse_mounts() -> set[str]:
    """Every FUSE mount there is."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {line.split()[4] for line in lines if " - fuse" in line}


if __name__ == "__main__":
    sys.exit(main())

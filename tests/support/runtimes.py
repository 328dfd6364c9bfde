"""WASI runtimes as values: how each is started, and what its guest answered.

Used by tests/mounted/test_runtimes.py and by the demo. A runtime is lazy: nothing is
installed before its first run.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from support import toolchain

RUN_SECONDS = 60
"""Far beyond any run seen: a guest that is still running hangs, and the test should say so."""


class GuestError(RuntimeError):
    """The runtime or the guest did not come to a regular end."""


@dataclass(frozen=True)
class Runtime(ABC):
    """One way to run a guest, by a command line that takes `--dir HOST::GUEST`."""

    name: str

    @abstractmethod
    def command(self) -> list[str]:
        """The words before the options."""

    def environment(self) -> dict[str, str]:
        """The environment for the command."""
        return dict(os.environ)

    def run(
        self,
        guest: str,
        arguments: Sequence[str],
        preopens: Iterable[str],
        launcher: Sequence[str] = (),
    ) -> list[str]:
        """Run a guest from tests/guests and return its lines.

        PREOPENS are options: "--dir=HOST::GUEST" or, for wasmtime, "--ro-dir=…". LAUNCHER goes
        before the whole command, as `overlayd run … --` does.
        """
        options = [word for preopen in preopens for word in preopen.split("=", 1)]
        command = [*self.command(), *options, str(toolchain.guest(guest)), *arguments]
        return run_lines([*launcher, *command], self.environment())


class Wasmtime(Runtime):
    """The `wasmtime` package in the version that is this runtime's name."""

    def command(self) -> list[str]:
        return [sys.executable, str(toolchain.GUEST_SOURCES / "run_wasmtime.py")]

    def environment(self) -> dict[str, str]:
        package = str(toolchain.wasmtime_package(self.name.removeprefix("wasmtime-")))
        inherited = os.environ.get("PYTHONPATH")
        path = os.pathsep.join([package, inherited]) if inherited else package
        return {**os.environ, "PYTHONPATH": path}


class Node(Runtime):
    """node:wasi, which lets the host kernel resolve paths."""

    def command(self) -> list[str]:
        node = shutil.which("node")
        if node is None:
            raise toolchain.ToolchainError("node not found: apt-get install nodejs")
        return [node, str(toolchain.GUEST_SOURCES / "run_node.mjs")]


WASMTIME_VULNERABLE = Wasmtime(f"wasmtime-{toolchain.VULNERABLE}")
WASMTIME_NEWEST = Wasmtime(f"wasmtime-{toolchain.NEWEST}")
NODE = Node("node")

WASMTIMES = [WASMTIME_VULNERABLE, WASMTIME_NEWEST]
RUNTIMES: list[Runtime] = [*WASMTIMES, NODE]


def probe_arguments(commands: Iterable[str]) -> list[str]:
    """The probe guest's command line for commands written as a shell would take them."""
    words: list[str] = []
    for command in commands:
        words += [*shlex.split(command), ","]
    return words


def probe(runtime: Runtime, preopens: Iterable[str], commands: Iterable[str]) -> dict[str, str]:
    """Put the commands to the probe guest, in one run; return the answer to each."""
    asked = list(commands)
    if len(set(asked)) != len(asked):
        raise ValueError("a command twice: the answers could not be told apart")
    answers = runtime.run("probe", probe_arguments(asked), preopens)
    if len(answers) != len(asked):
        raise GuestError(f"{len(asked)} commands, {len(answers)} answers: {answers}")
    # node 18 counts a terminating NUL to what readlink returns; no link's text can hold one.
    return {
        command: answer.removesuffix("%00") if command.startswith("readlink") else answer
        for command, answer in zip(asked, answers, strict=True)
    }


def run_lines(command: list[str], environment: dict[str, str]) -> list[str]:
    """Run a command that must succeed; return the lines it printed."""
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    if done.returncode:
        said = f"{done.stdout}{done.stderr}"
        raise GuestError(f"{shlex.join(command)}: status {done.returncode}\n{said}")
    return done.stdout.splitlines()

"""podman apart from the machine's own: its storage, mounts, processes and cgroups are a test's.

A keeper process holds a mount namespace and a PID namespace of their own; everything runs inside.
When the keeper is killed the kernel ends every process in there and drops every mount, so nothing
is left whatever a test did; cgroups are the one thing that has to be removed by hand.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CompletedProcess

from support.processes import wait_until

SECONDS = 120.0
"""For one command; they take a second or two, and far longer on a machine that is busy."""

_CGROUPS = Path("/sys/fs/cgroup")

_KEEPER = """
import os, signal, subprocess, sys
place = sys.argv[1]
# Where podman and runc write whatever they are told: runc's states, the cache of known layers.
for directory in ("/run", "/var/lib"):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", directory], check=True)
# What containers share with each other; / stays private, and so nothing comes out.
for name, propagation in (("store", "private"), ("shared", "shared")):
    os.mkdir(f"{place}/{name}")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", name, f"{place}/{name}"], check=True)
    subprocess.run(["mount", f"--make-{propagation}", f"{place}/{name}"], check=True)
os.mkdir(f"{place}/store/tmp")
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
print("ready", flush=True)
while True:  # the first process of a PID namespace inherits every orphan
    signal.sigwait([signal.SIGCHLD])
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
"""


class Sandbox:
    """Runs commands in the keeper's namespaces."""

    def __init__(self, place: Path, keeper: int) -> None:
        self.place = place
        self._keeper = keeper

    @property
    def shared(self) -> Path:
        """A shared mount, as every directory of a host that systemd has booted lies on one."""
        return self.place / "shared"

    def view(self, path: Path) -> Path:
        """PATH, which is one inside, as this process can reach it."""
        return Path(f"/proc/{self._keeper}/root{path}")

    def run(
        self, *command: str, check: bool = True, seconds: float = SECONDS
    ) -> CompletedProcess[str]:
        """Run COMMAND to its end; it must succeed if CHECK."""
        words = ["nsenter", f"--target={self._keeper}", "--mount", "--pid", "--", *command]
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={**os.environ, "TMPDIR": f"{self.place}/store/tmp"},
        )
        if check:
            assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def podman(self, *arguments: str, check: bool = True, seconds: float = SECONDS) -> str:
        """What `podman ARGUMENTS` says."""
        return self.run(*self.podman_command, *arguments, check=check, seconds=seconds).stdout

    def try_podman(self, *arguments: str) -> CompletedProcess[str]:
        """`podman ARGUMENTS`, which may fail."""
        return self.run(*self.podman_command, *arguments, check=False)

    @property
    def podman_command(self) -> list[str]:
        """podman with the sandbox's own storage."""
        store = f"{self.place}/store"
        command = ["podman", "--root", f"{store}/root", "--runroot", f"{store}/run"]
        command += ["--tmpdir", f"{store}/libpod", "--cgroup-manager=cgroupfs"]
        return [*command, "--events-backend=none", "--runtime=runc"]

    def is_mounted(self, path: Path) -> bool:
        """Whether PATH is a mount point inside, asked without touching it."""
        lines = Path(f"/proc/{self._keeper}/mountinfo").read_text().splitlines()
        return str(path) in {line.split()[4] for line in lines}


@contextmanager
def sandbox() -> Iterator[Sandbox]:
    """A sandbox; gone with all that was made in it at the end of the block."""
    place = Path(tempfile.mkdtemp(prefix="overlayd-test-", dir="/tmp")).resolve()
    before = _libpod_cgroups()
    unshare = ["unshare", "--mount", "--propagation=private", "--pid", "--fork", "--mount-proc"]
    outer = subprocess.Popen(
        [*unshare, "--kill-child", sys.executable, "-c", _KEEPER, str(place)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert outer.stdout is not None and outer.stdout.readline() == "ready\n"
        yield Sandbox(place, _only_child(outer.pid))
    finally:
        with suppress(ProcessLookupError, ValueError):
            os.kill(_only_child(outer.pid), signal.SIGKILL)
        outer.kill()
        outer.communicate(timeout=SECONDS)
        wait_until(lambda: _remove_cgroups(_libpod_cgroups() - before))
        shutil.rmtree(place)


def _only_child(pid: int) -> int:
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


def _libpod_cgroups() -> set[Path]:
    """podman's cgroups in every hierarchy, those of the machine's own containers among them."""
    tops = (_CGROUPS, *_CGROUPS.iterdir())
    parents = [top / "libpod_parent" for top in tops]
    return {Path(where) for parent in parents for where, _, _ in os.walk(parent)}


def _remove_cgroups(groups: set[Path]) -> bool:
    """Remove GROUPS, the innermost first; whether all of them are gone."""
    for group in sorted(groups, reverse=True):
        with suppress(OSError):  # its last process is still on the way out
            group.rmdir()
    return not any(group.exists() for group in groups)

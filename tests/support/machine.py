"""A real systemd in a throw-away root, booted in half a second; `machine.sh` has its guards."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess

import overlayd
from support import toolchain
from support.mounting import unescape
from support.processes import wait_until

REPOSITORY = Path(__file__).parents[2]
UNITS = REPOSITORY / "systemd"
PATIENCE = 60.0
"""Seconds; what a test waits for takes two, and this machine may be busy with something else."""

_CGROUP = "overlayd-test-"
_STOCK = Path("/lib/systemd/system")
_STOCK_UNITS = (
    *("systemd-journald.service", "systemd-journald.socket", "systemd-journald-dev-log.socket"),
    *("shutdown.target", "umount.target", "final.target", "exit.target", "systemd-exit.service"),
    *("local-fs.target", "local-fs-pre.target", "remote-fs.target", "paths.target"),
    *("sockets.target", "slices.target", "timers.target", "basic.target", "multi-user.target"),
)
# The early boot would set up the machine: it is empty here.
_SYSINIT = "[Unit]\nDefaultDependencies=no\nAfter=local-fs.target\n"
_START = """[Unit]
DefaultDependencies=no
AllowIsolate=yes
Wants=systemd-journald.service
After=systemd-journald.service
"""
_OVERLAYD = """#!/bin/sh
PYTHONPATH={source} PYTHONDONTWRITEBYTECODE=1 exec {python} -m overlayd "$@"
"""

_WASMTIME = """#!/bin/sh
shift # "run"
PYTHONPATH={place} exec {python} {place}/run_wasmtime.py "$@"
"""


class Machine:
    """The booted systemd; paths are those inside, which `inside` turns into ones that work here."""

    def __init__(self, place: Path) -> None:
        """Boot one whose files for the way there lie in PLACE."""
        self._place = place
        for former in cgroup_root().glob(f"{_CGROUP}*"):
            if not Path("/proc", former.name.removeprefix(_CGROUP)).exists():
                _remove_cgroups(former)
        self._cgroup = cgroup_root() / f"{_CGROUP}{os.getpid()}"
        self._cgroup.mkdir()
        self._log = place / "console.log"
        try:
            self._outer = self._boot()
            self._init = self._find_init()
            assert wait_until(
                lambda: self.systemctl("is-system-running").stdout == "running\n", PATIENCE
            )
            self.systemctl("log-target", "journal", check=True)
            self._install_overlayd()
        except BaseException:
            print(self._log.read_text() if self._log.exists() else "", file=sys.stderr)
            self.stop()
            raise

    def _boot(self) -> subprocess.Popen[bytes]:
        units = self._place / "units"
        units.mkdir()
        for name in _STOCK_UNITS:
            shutil.copy(_STOCK / name, units)
        (units / "sysinit.target").write_text(_SYSINIT)
        (units / "sdbox.target").write_text(_START)
        for unit in UNITS.iterdir():
            shutil.copy(unit, units)
        script = Path(__file__).with_name("machine.sh")
        with self._log.open("wb") as log:
            return subprocess.Popen(
                ["bash", str(script), str(self._cgroup), str(self._place), *_what_overlayd_needs()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _find_init(self) -> int:
        found: list[int] = []

        def is_there() -> bool:
            assert self._outer.poll() is None, f"it did not boot:\n{self._log.read_text()}"
            children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children")
            for child in children.read_text().split():
                with suppress(OSError):
                    if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                        found.append(int(child))
            return bool(found)

        assert wait_until(is_there, PATIENCE), f"it did not boot:\n{self._log.read_text()}"
        return found[0]

    def _install_overlayd(self) -> None:
        source = Path(overlayd.__file__).parents[1]
        command = _OVERLAYD.format(source=source, python=sys.executable)
        self.write("/usr/local/bin/overlayd", command, mode=0o755)

    def install_wasmtime(self) -> None:
        """Put a real wasmtime, and a Python that every user may run, into /usr/local/bin."""
        python = Path("/usr/bin/python3")
        python = python if python.exists() else Path(sys.base_prefix, "bin", "python3")
        place = "/opt/wasmtime"
        shutil.copytree(toolchain.wasmtime_package(toolchain.NEWEST), self.inside(place))
        shutil.copy(toolchain.GUEST_SOURCES / "run_wasmtime.py", self.inside(place))
        command = _WASMTIME.format(place=place, python=python)
        self.write("/usr/local/bin/wasmtime", command, mode=0o755)

    def stop(self) -> None:
        """Shut it down, by force where it does not go, and see everything of it off."""
        outer = getattr(self, "_outer", None)
        if outer is not None:
            if hasattr(self, "_init"):
                self.systemctl("--no-block", "exit", "0")
                with suppress(subprocess.TimeoutExpired):
                    outer.wait(10)
            outer.kill()
            outer.wait(10)
        assert wait_until(lambda: not self._processes(), 30), self._processes()
        _remove_cgroups(self._cgroup)
        assert not self._cgroup.exists()

    def _processes(self) -> list[str]:
        found = []
        for directory, _, _ in os.walk(self._cgroup):
            with suppress(OSError):
                found += Path(directory, "cgroup.procs").read_text().split()
        return found

    # -- looking and acting inside -----------------------------------------------------------------

    def inside(self, path: str) -> Path:
        """PATH inside as this process reaches it; not for mounts, which may hang.

        An absolute link on the way would lead out to the machine's own files: there must be none.
        """
        found = Path(f"/proc/{self._init}/root")
        *above, last = Path(path).relative_to("/").parts
        for name in above:
            found /= name
            assert not found.is_symlink(), f"{found} is a link"
        return found / last

    def enter(self, *command: str) -> list[str]:
        """The words that run COMMAND inside."""
        return ["nsenter", "-t", str(self._init), "-m", "-p", "-i", "-u", "-C", "--", *command]

    def run(self, *command: str, check: bool = True) -> CompletedProcess[str]:
        """Run COMMAND inside, outside of every unit: where an administrator's shell would be."""
        done = subprocess.run(
            self.enter(*command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env={"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
        )
        assert not check or done.returncode == 0, (command, done.returncode, done.stderr)
        return done

    def systemctl(self, *arguments: str, check: bool = False) -> CompletedProcess[str]:
        """Run systemctl with ARGUMENTS."""
        return self.run("systemctl", *arguments, check=check)

    def show(self, unit: str, *properties: str) -> list[str]:
        """The values of PROPERTIES of UNIT, in that order."""
        answer = self.systemctl("show", unit, *(f"-p{name}" for name in properties), check=True)
        values = dict(line.split("=", 1) for line in answer.stdout.splitlines())
        return [values[name] for name in properties]

    def state(self, unit: str) -> str:
        """The ActiveState of UNIT."""
        return self.show(unit, "ActiveState")[0]

    def main_pid(self, unit: str) -> int:
        """The main process of UNIT as it is numbered out here; 0 where there is none."""
        number, group = self.show(unit, "MainPID", "ControlGroup")
        if number == "0":
            return 0
        for process in self._members(group):
            with suppress(OSError):  # it has ended
                status = Path(f"/proc/{process}/status").read_text()
                numbers = next(line for line in status.splitlines() if line.startswith("NSpid:"))
                if numbers.split()[-1] == number:
                    return int(process)
        return 0

    def _members(self, group: str) -> list[str]:
        """The processes in a control group, by their numbers out here."""
        try:
            return Path(f"{self._cgroup}{group}", "cgroup.procs").read_text().split()
        except OSError:  # it went with the last of them
            return []

    def kill(self, unit: str, number: signal.Signals) -> int:
        """Send a signal to the main process of UNIT; which one that was."""
        process = self.main_pid(unit)
        assert process > 0, f"{unit} has no main process"
        os.kill(process, number)
        return process

    def journal(self, unit: str) -> str:
        """What UNIT and systemd about it have said, without the dates."""
        self.run("journalctl", "--sync")
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", unit).stdout

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write TEXT to a new file PATH, making directories on the way."""
        file = self.inside(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def mounts(self, kind: str = "fuse.overlayd") -> list[str]:
        """Mount points of file systems of type KIND."""
        found = []
        for line in Path(f"/proc/{self._init}/mountinfo").read_text().splitlines():
            fields = line.split()
            if fields[fields.index("-") + 1] == kind:
                found.append(unescape(fields[4]))
        return found


def settings(unit: Path) -> dict[str, list[str]]:
    """What UNIT sets, with every value it gives."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if match := re.fullmatch(r"\s*(\w+)\s*=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def cgroup_root() -> Path:
    """Where cgroups of version 2 are, alone or beside those of version 1."""
    unified = Path("/sys/fs/cgroup/unified")
    return unified if unified.is_dir() else Path("/sys/fs/cgroup")


def why_not() -> str | None:
    """What this machine lacks for booting a systemd on it, in words."""
    if os.geteuid() != 0:
        return "only root can boot a systemd of its own"
    if not Path("/lib/systemd/systemd").exists():
        return "systemd is not installed (tools/install-packages does that)"
    root = cgroup_root()
    if not (root / "cgroup.procs").exists():
        return f"there are no cgroups of version 2 at {root}"
    if not os.access(root, os.W_OK) or os.statvfs(root).f_flag & os.ST_RDONLY:
        return f"{root} is read-only, as in a container without privileges"
    return None


def _remove_cgroups(top: Path) -> None:
    """Remove TOP and what is below it, as far as no process is left there."""
    for directory, _, _ in os.walk(top, topdown=False):
        with suppress(OSError):
            os.rmdir(directory)


def _what_overlayd_needs() -> Sequence[str]:
    """Directories to show inside: the interpreter, its libraries, overlayd itself."""
    source = Path(overlayd.__file__).parents[1]
    wanted = {Path(sys.prefix), Path(sys.base_prefix), source}
    wanted |= {Path(path) for path in sys.path if path.endswith("-packages")}
    root = os.stat("/").st_dev
    hidden = ("/tmp/", "/run/", "/dev/")
    return [
        str(path)
        for path in sorted(wanted)
        if path.is_dir() and (str(path).startswith(hidden) or path.stat().st_dev != root)
    ]

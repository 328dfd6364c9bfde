"""Helpers for tests of a mount's life: where it is, which process serves it, what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from support.mounting import is_mounted, mount_points, unescape
from support.processes import attempt, command, ends, wait_until


def make_dirs(place: Path, *names: str) -> list[Path]:
    """Directories in PLACE, each with a file `file` that holds its name."""
    made = []
    for name in names:
        directory = place / name
        directory.mkdir(parents=True)
        (directory / "file").write_text(name)
        made.append(directory)
    return made


def make_target(place: Path, name: str = "target") -> Path:
    """An empty directory to mount on."""
    target = place / name
    target.mkdir()
    return target


def daemon_of(target: Path) -> int:
    """The process that serves the topmost mount on TARGET, as it has written down itself."""
    major, minor = _top(target)[2].split(":")
    device = os.makedev(int(major), int(minor))
    record = json.loads(Path(os.environ["OVERLAYD_RUNTIME_DIR"], f"{device}.json").read_text())
    assert record["target"] == str(target)
    return int(record["pid"])


def _top(target: Path) -> list[str]:
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [fields for fields in lines if unescape(fields[4]) == str(target)][-1]


def mount(target: Path, source: Path, *options: str) -> int:
    """Mount SOURCE at the root on TARGET; the daemon's process id."""
    done = attempt("mount", "--dir", f"{source}::/", *options, str(target))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr
    return daemon_of(target)


def type_and_name(target: Path) -> tuple[str, str]:
    """File system type and fsname of the topmost mount on TARGET."""
    fields = _top(target)
    return fields[fields.index("-") + 1], fields[fields.index("-") + 2]


def times_mounted(target: Path) -> int:
    """How many mounts lie on TARGET, one over another."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sum(line.split()[4] == str(target) for line in lines)


def is_live(target: Path) -> bool:
    """Whether TARGET is mounted and answers."""
    return is_mounted(target) and (target / "file").exists()


def is_watching(target: Path) -> bool:
    """Whether the daemon has begun to watch the host."""
    with suppress(OSError):  # one of its descriptors was closed meanwhile
        descriptors = Path(f"/proc/{daemon_of(target)}/fd").iterdir()
        return any(os.readlink(fd) == "anon_inode:inotify" for fd in descriptors)
    return False


def kill(pid: int) -> None:
    """Kill a daemon with SIGKILL, which leaves a dead mount, and see it off."""
    os.kill(pid, signal.SIGKILL)
    assert ends(pid)


@contextmanager
def foreground(
    target: Path, *dirs: str, options: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """`overlayd mount -f`, live; what it writes to stderr is its log."""
    flags = [word for entry in dirs for word in ("--dir", entry)]
    process = subprocess.Popen(
        command("mount", "-f", *flags, *options, str(target)),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert wait_until(lambda: str(target) in mount_points() or process.poll() is not None)
        assert process.poll() is None, process.communicate()[1]
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)

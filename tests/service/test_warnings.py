"""Warnings of mounts that nobody sees, in real mount namespaces.

Whoever makes a PID namespace of his own with unshare(1) may look at its PID 1, and so may tell
what that one sees. Where PID 1 is not the machine's, overlayd takes itself to be in a container.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from overlayd.host.propagation import is_in_container
from support.live import make_dirs, make_target
from support.processes import command, has_ended, wait_until


class Place:
    """Directories for a test: `volume` gets a tmpfs, on which the target lies."""

    def __init__(self, place: Path) -> None:
        (self.source,) = make_dirs(place, "source")
        self.volume = make_target(place, "volume")
        self.target = self.volume / "target"

    def prepared(self, propagation: str, line: str, *, own_pids: bool = True) -> list[str]:
        """LINE in a mount namespace, the target on a mount with PROPAGATION, as a rule as PID 1."""
        volume, target = shlex.quote(str(self.volume)), shlex.quote(str(self.target))
        script = (
            f"mount -t tmpfs volume {volume} && mount --make-{propagation} {volume}"
            f" && mkdir {target} && {{ {line}\n}}"
        )
        pids = ["--pid", "--fork", "--kill-child", "--mount-proc"] if own_pids else []
        return ["unshare", "--mount", "--propagation", "private", *pids, "sh", "-c", script]

    def overlayd(self, *words: str) -> str:
        """A line of shell that mounts."""
        return shlex.join(command("mount", "--dir", f"{self.source}::/", *words, str(self.target)))

    @property
    def umount(self) -> str:
        """A line of shell that unmounts."""
        return shlex.join(command("umount", str(self.target)))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def said(words: list[str]) -> str:
    """What a script that succeeds writes to stderr."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_container_that_mounts_for_itself(place: Place) -> None:
    """What leaves a daemon is for those in the container: nothing to say."""
    assert said(place.prepared("private", f"{place.overlayd()} && {place.umount}")) == ""


IN_ANOTHER = "unshare --mount --propagation {} sh -c {}"


@pytest.mark.parametrize("propagation", ["private", "slave"])
def test_a_namespace_that_pid_one_does_not_see_into(place: Place, propagation: str) -> None:
    inner = shlex.quote(f"{place.overlayd()} && {place.umount}")
    told = said(place.prepared("shared", IN_ANOTHER.format(propagation, inner)))
    expect_private(told, place)


@pytest.mark.skipif(is_in_container(), reason="PID 1 is not the machine's: this is a container")
@pytest.mark.parametrize("capabilities", ["all", "few"])
def test_a_unit_with_a_namespace_of_its_own(place: Place, capabilities: str) -> None:
    """As systemd makes it: slaves of the machine's mounts, and then shared among themselves.

    With few capabilities PID 1 must not be looked at (ptrace(2), access mode checking).
    """
    line = f"{place.overlayd()} && {place.umount}"
    if capabilities == "few":
        line = f"setpriv --bounding-set -sys_ptrace,-net_admin sh -c {shlex.quote(line)}"
    line = f"mount --make-shared {shlex.quote(str(place.volume))} && {line}"
    unit = IN_ANOTHER.format("slave", shlex.quote(line))
    expect_private(said(place.prepared("shared", unit, own_pids=False)), place)


def expect_private(told: str, place: Place) -> None:
    (line,) = told.splitlines()
    assert line.startswith(f"overlayd: warning: {place.target} lies in a private mount namespace: ")
    assert "PrivateTmp=" in line


def test_a_namespace_whose_mounts_reach_pid_one(place: Place) -> None:
    inner = shlex.quote(f"{place.overlayd()} && {place.umount}")
    assert said(place.prepared("shared", IN_ANOTHER.format("unchanged", inner))) == ""


def test_run_is_private_on_purpose(place: Place) -> None:
    words = command("run", "--dir", f"{place.source}::/", "--", "true")
    line = IN_ANOTHER.format("private", shlex.quote(shlex.join(words)))
    assert said(place.prepared("private", line)) == ""


def test_on_the_machine_itself_nothing_is_said(place: Place) -> None:
    place.target.mkdir()
    assert said(["sh", "-c", f"{place.overlayd()} && {place.umount}"]) == ""


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_sidecar_whose_target_is_on_a_private_mount(
    place: Place, tmp_path: Path, form: str
) -> None:
    """Said once, in the log and in the form that the log has: that is what one looks at."""
    told = [line for line in log_of(place, tmp_path, "private", form) if "shared mount" in line]
    assert len(told) == 1
    assert ('"level": "warning"' if form == "json" else " WARNING ") in told[0]
    assert f"{place.target} is not on a shared mount: " in told[0]
    assert "rshared" in told[0] and "Bidirectional" in told[0]


def test_a_sidecar_whose_target_is_on_a_shared_mount(place: Place, tmp_path: Path) -> None:
    assert not [line for line in log_of(place, tmp_path, "shared", "text") if "WARN" in line]


def log_of(place: Place, tmp_path: Path, propagation: str, form: str) -> list[str]:
    """The log of a mount in the foreground that is PID 1, from its start to its end by SIGTERM."""
    log = tmp_path / "log"
    line = f"exec {place.overlayd('-f', '--log-format', form)} 2> {shlex.quote(str(log))}"
    process = subprocess.Popen(place.prepared(propagation, line))
    assert wait_until(lambda: log.exists() and "serving" in log.read_text())
    (daemon,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(daemon), signal.SIGTERM)
    assert process.wait(20) == 0 and has_ended(int(daemon))
    return log.read_text().splitlines()

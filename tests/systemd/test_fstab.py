"""Lines of fstab as systemd mounts them at boot: units made by its own generator."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import overlayd
from support.machine import Machine
from support.processes import wait_until

GENERATOR = "/lib/systemd/system-generators/systemd-fstab-generator"
TARGETS = ("/run/fstab/one", "/run/fstab/two")
UNITS = ("run-fstab-one.mount", "run-fstab-two.mount")
FSTAB = """
/etc/overlayd/fstab.toml /run/fstab/one overlayd nofail,allow_other,noatime 0 0
guest /run/fstab/two fuse.overlayd dir=/srv/with\\040blank::/,dir=/srv/lib::/lib::ro 0 0
"""


@pytest.fixture
def generated(machine: Machine) -> Iterator[None]:
    """The units of these two lines, loaded; taken away again."""
    source = Path(overlayd.__file__).parents[1]
    for name in ("overlayd", "fuse.overlayd"):
        helper = f"/usr/sbin/mount.{name}"
        words = f"{shlex.quote(sys.executable)} -m overlayd.cli.mount_helper"
        machine.write(
            helper, f'#!/bin/sh\nPYTHONPATH={source} PYTHONDONTWRITEBYTECODE=1 exec {words} "$@"\n'
        )
        machine.inside(helper).chmod(0o755)
    machine.write("/srv/with blank/lib/x", "masked")
    machine.write("/srv/lib/x", "mounted")
    machine.write("/etc/overlayd/fstab.toml", '[[dir]]\nhost = "/srv/with blank"\nguest = "/"\n')
    machine.write("/etc/fstab.test", FSTAB)
    place = "/run/generated"
    machine.run("mkdir", "-p", place, *TARGETS)
    machine.run("env", "SYSTEMD_FSTAB=/etc/fstab.test", GENERATOR, place, place, place)
    for unit in UNITS:
        machine.run("cp", f"{place}/{unit}", "/etc/systemd/system/")
    machine.systemctl("daemon-reload", check=True)
    yield
    for unit in UNITS:
        machine.systemctl("stop", unit)
        machine.run("rm", f"/etc/systemd/system/{unit}")
    machine.systemctl("daemon-reload", check=True)


@pytest.mark.usefixtures("generated")
def test_systemd_mounts_and_unmounts_them(machine: Machine) -> None:
    for target, unit, content in zip(TARGETS, UNITS, ("masked", "mounted"), strict=True):
        started = machine.systemctl("start", unit)
        assert started.returncode == 0, (started.stderr, machine.journal(unit))
        assert machine.run("cat", f"{target}/lib/x").stdout == content
        assert machine.state(unit) == "active"
        assert target in machine.mounts()
    for target, unit in zip(TARGETS, UNITS, strict=True):
        machine.systemctl("stop", unit, check=True)
        assert target not in machine.mounts()
        assert machine.state(unit) == "inactive"
    assert wait_until(lambda: not serving(machine)), "a daemon outlives its mount"


def serving(machine: Machine) -> str:
    """The daemons that mount(8) has left."""
    return machine.run("pgrep", "-f", "mount_helper.*/run/fstab", check=False).stdout

"""overlayd-guest@.service: a real wasmtime that lives and dies with the mount it works in."""

from __future__ import annotations

import shutil
import signal

import pytest

from support import toolchain
from support.instance import Instance
from support.machine import PATIENCE, Machine
from support.processes import wait_until

HEAD = 'allow_other = true\npassthrough = "{}"'
either_way = pytest.mark.parametrize("way", ["auto", "off"])


@pytest.fixture(autouse=True)
def module(machine: Machine, wasmtime: None, instance: Instance) -> None:
    """The guest's module, where the unit looks for it."""
    shutil.copy(toolchain.guest("resident"), machine.inside(f"/etc/overlayd/{instance.name}.wasm"))


@either_way
def test_starting_the_guest_starts_the_daemon_first(
    machine: Machine, instance: Instance, way: str
) -> None:
    instance.configure(head=HEAD.format(way))
    machine.systemctl("start", instance.guest, check=True)
    assert instance.is_served()
    assert instance.guest_works(), "hardened as it is, it reads and writes in the namespace"
    machine.systemctl("stop", instance.unit, check=True)
    assert machine.state(instance.guest) == "inactive"


@pytest.mark.parametrize(
    "daemon",
    ["PrivateMounts=yes", "ExecStart=\nExecStart=/bin/sleep inf\nType=exec"],
    ids=["mount-is-hidden", "nothing-is-mounted"],
)
def test_the_guest_does_not_start_on_an_unmounted_directory(
    machine: Machine, instance: Instance, daemon: str
) -> None:
    instance.drop_in(instance.unit, f"[Service]\n{daemon}")
    started = machine.systemctl("start", instance.guest)
    assert machine.state(instance.unit) == "active"
    assert "Assertion failed" in started.stderr
    assert machine.show(instance.guest, "ActiveState", "AssertResult") == ["inactive", "no"]
    assert not machine.inside(f"{instance.source}/data/count").exists(), "it never ran"


def test_at_boot_the_daemon_is_first_and_at_shutdown_last(
    machine: Machine, instance: Instance
) -> None:
    # Slow, so that their order is no accident.
    instance.drop_in(instance.unit, "[Service]\nExecStartPre=/bin/sleep 0.5")
    look = f"sleep 0.5; cat {instance.target}/file > /run/{instance.name}"
    instance.drop_in(instance.guest, f"[Service]\nExecStopPost=+/bin/sh -c '{look}'")
    machine.systemctl("enable", instance.unit, instance.guest, check=True)
    machine.systemctl("start", "multi-user.target", check=True)
    assert instance.guest_works()
    moment = "ActiveEnterTimestampMonotonic"
    daemon, guest = (int(machine.show(u, moment)[0]) for u in (instance.unit, instance.guest))
    assert 0 < daemon <= guest
    machine.systemctl("isolate", "sdbox.target", check=True)  # does not wait for what it stops
    assert wait_until(lambda: machine.state(instance.unit) == "inactive", PATIENCE)
    assert machine.inside(f"/run/{instance.name}").read_text() == f"I am {instance.name}\n"
    assert instance.target not in machine.mounts()


@either_way
def test_the_guest_comes_back_with_a_daemon_that_was_killed(
    machine: Machine, instance: Instance, way: str
) -> None:
    instance.configure(head=HEAD.format(way))
    machine.systemctl("enable", instance.guest, check=True)
    killed = instance.start()
    assert instance.guest_works(), "enabled, it starts with the daemon"
    guest = machine.main_pid(instance.guest)
    machine.kill(instance.unit, signal.SIGKILL)
    assert instance.comes_back(killed), machine.journal(instance.unit)
    assert wait_until(lambda: machine.main_pid(instance.guest) not in (0, guest), PATIENCE)
    assert instance.guest_works(), machine.journal(instance.guest)


def test_the_guest_that_dies_comes_back_alone(machine: Machine, instance: Instance) -> None:
    machine.systemctl("start", instance.guest, check=True)
    assert instance.guest_works()
    daemon = machine.main_pid(instance.unit)
    guest = machine.kill(instance.guest, signal.SIGKILL)
    assert wait_until(lambda: machine.main_pid(instance.guest) not in (0, guest), PATIENCE)
    assert instance.guest_works()
    assert machine.main_pid(instance.unit) == daemon

"""The capabilities that the unit leaves the daemon: enough for its callers, none to spare."""

from __future__ import annotations

import pytest

from support.instance import Instance
from support.machine import UNITS, Machine, settings

NEEDED = {
    "CAP_CHOWN": "chown 5:6 $T/data/file",
    "CAP_DAC_OVERRIDE": "echo x > $T/data/closed/file",
    "CAP_FOWNER": "chmod 640 $T/data/theirs",
    "CAP_FSETID": "chmod 2755 $T/data/theirs && test -g $T/data/theirs",
    "CAP_SETGID": "setpriv --regid=7 --clear-groups touch $T/data/as-group",
    "CAP_SETUID": "setpriv --reuid=7 --clear-groups touch $T/data/as-user",
}
"""For each capability what a caller can do on the host, and only with it in the namespace."""

PLANT = """
mkdir -m 500 closed && touch file theirs closed/file
chown -R 1000:2000 closed theirs && chmod 000 closed/file
"""
REFUSED = {
    "device-nodes": "mknod $T/data/device c 1 3",
    "file-capabilities": "setcap cap_kill=ep $T/data/file",
}


def does(machine: Machine, instance: Instance, script: str) -> bool:
    """Whether SCRIPT succeeds for root outside the unit; $T is the target."""
    line = f"T={instance.target}; {script}"
    return machine.run("sh", "-c", line, check=False).returncode == 0


@pytest.fixture(autouse=True)
def planted(machine: Machine, instance: Instance) -> None:
    """Files that belong to somebody else, in the writable source."""
    machine.run("sh", "-ec", f"cd {instance.source}/data; {PLANT}")


@pytest.mark.parametrize("way", ["auto", "off"])
def test_callers_can_do_what_they_could_on_the_host(
    machine: Machine, instance: Instance, way: str
) -> None:
    instance.configure(head=f'allow_other = true\npassthrough = "{way}"')
    instance.start()
    assert [what for what in NEEDED.values() if not does(machine, instance, what)] == []


@pytest.mark.parametrize("script", REFUSED.values(), ids=REFUSED)
def test_what_is_left_out_on_purpose(machine: Machine, instance: Instance, script: str) -> None:
    instance.start()
    assert not does(machine, instance, script)
    assert does(machine, instance, script.replace("$T", instance.source)), "the host would do it"


@pytest.mark.parametrize("capability", NEEDED)
def test_none_is_to_spare(machine: Machine, instance: Instance, capability: str) -> None:
    (given,) = settings(UNITS / "overlayd@.service")["CapabilityBoundingSet"]
    assert {"CAP_SYS_ADMIN", *NEEDED} == set(given.split()), "each has its line here"
    others = " ".join(name for name in given.split() if name != capability)
    clear = "[Service]\nCapabilityBoundingSet=\n"
    instance.drop_in(instance.unit, f"{clear}CapabilityBoundingSet={others}")
    instance.start()
    assert not does(machine, instance, NEEDED[capability])

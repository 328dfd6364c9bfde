"""A unit whose mount nobody sees says so in the journal; as it is shipped it has no need to."""

from __future__ import annotations

import pytest

from support.instance import Instance
from support.machine import Machine

UNSEEN = "nobody outside"


@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        ("ProtectKernelTunables=yes", False),
        ("ProtectSystem=full", False),
        ("PrivateMounts=yes", False),
        ("", True),
        ("MountFlags=shared", True),
    ],
)
def test_a_setting_that_hides_the_mount(
    machine: Machine, instance: Instance, setting: str, seen: bool
) -> None:
    """It is active either way: the warning is all that tells.

    The PID 1 of these tests is not the machine's, so that overlayd must look at it to know.
    """
    may_look = "CapabilityBoundingSet=~"
    instance.drop_in(instance.unit, f"[Service]\n{may_look}\n{setting}")
    instance.start()
    assert machine.state(instance.unit) == "active"
    assert (instance.target in machine.mounts()) is seen
    told = [line for line in machine.journal(instance.unit).splitlines() if UNSEEN in line]
    assert len(told) == (0 if seen else 1)
    assert all(instance.target in line for line in told)

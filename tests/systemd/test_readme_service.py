"""The README's service, copied and pasted into a machine with a real systemd."""

from __future__ import annotations

from support.machine import Machine
from support.readme import block, section


def test_the_service_of_the_readme(machine: Machine) -> None:
    plant = block(section("## Three ways to use it"), 0)
    service = block(section("### 2. As a service, before the guests"), 0)
    try:
        said = machine.run("bash", "-ec", f"{plant}\n{service}").stdout
        assert said.splitlines()[-1] == "mounted"
        assert machine.state("overlayd@demo") == "active"
        machine.run("sed", "-i", "s/^ro = true/ro = false/", "/etc/overlayd/demo.toml")
        machine.systemctl("reload", "overlayd@demo", check=True)
        machine.run("touch", "/run/overlayd/mnt/demo/lib/new")
    finally:
        machine.systemctl("disable", "--now", "overlayd@demo")
        machine.run("rm", "-r", "/srv/app", "/srv/lib", "/etc/overlayd/demo.toml", check=False)

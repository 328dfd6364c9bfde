"""An instance of overlayd@.service on the machine of the tests, with its guest."""

from __future__ import annotations

from pathlib import Path

from support.machine import PATIENCE, Machine
from support.processes import wait_until


class Instance:
    """One instance of overlayd@.service, with its configuration and a source of its own."""

    def __init__(self, machine: Machine, name: str) -> None:
        self.machine = machine
        self.name = name
        self.unit = f"overlayd@{name}.service"
        self.guest = f"overlayd-guest@{name}.service"
        self.target = f"/run/overlayd/mnt/{name}"
        self.config = f"/etc/overlayd/{name}.toml"
        self.source = f"/srv/{name}"

    def configure(self, *entries: str, head: str = "allow_other = true") -> None:
        """Write the configuration: HEAD, the source read-only at the root, `data`, ENTRIES."""
        for directory, mode in (("", 0o755), ("data", 0o777)):
            place = self.machine.inside(f"{self.source}/{directory}")
            place.mkdir(parents=True, exist_ok=True)
            place.chmod(mode)
        self.machine.write(f"{self.source}/file", f"I am {self.name}\n")
        own = (self.entry(self.source, "/", ro=True), self.entry(f"{self.source}/data", "/data"))
        self.machine.write(self.config, "\n".join((head, *own, *entries)))

    @staticmethod
    def entry(host: str, guest: str, *, ro: bool = False) -> str:
        """One entry of the configuration."""
        return f'[[dir]]\nhost = "{host}"\nguest = "{guest}"\nro = {str(ro).lower()}\n'

    def drop_in(self, unit: str, text: str) -> None:
        """Add TEXT to UNIT, as `systemctl edit` does."""
        self.machine.write(f"/etc/systemd/system/{unit}.d/test.conf", f"{text}\n")
        self.machine.systemctl("daemon-reload", check=True)

    def start(self) -> int:
        """Start it; its daemon."""
        self.machine.systemctl("start", self.unit, check=True)
        return self.machine.main_pid(self.unit)

    def sees(self) -> str:
        """What an administrator's shell reads in the mount, or why it cannot."""
        done = self.machine.run("timeout", "10", "cat", f"{self.target}/file", check=False)
        return done.stdout or done.stderr

    def is_served(self) -> bool:
        """Whether it is active and the mount shows the source to everybody, exactly once."""
        return (
            self.machine.state(self.unit) == "active"
            and self.machine.mounts().count(self.target) == 1
            and self.sees() == f"I am {self.name}\n"
        )

    def comes_back(self, former: int) -> bool:
        """Whether it is served again by another daemon than FORMER."""
        return wait_until(
            lambda: self.is_served() and self.machine.main_pid(self.unit) not in (0, former),
            PATIENCE,
        )

    def guest_works(self, count: Path | None = None) -> bool:
        """Whether the guest of the tests reads and writes in the namespace.

        COUNT is the file it writes, on the host; in the source `data` where it is not given.
        """
        file = count if count is not None else self.machine.inside(f"{self.source}/data/count")
        before = file.read_text() if file.exists() else ""
        return wait_until(
            lambda: (
                file.exists()
                and file.read_text() not in ("", before)
                and self.machine.state(self.guest) == "active"
            ),
            PATIENCE,
        )

    def clean_up(self) -> None:
        """Stop everything; fails where a mount stays."""
        machine, units = self.machine, f"{self.guest} {self.unit}"
        machine.run(
            *("sh", "-c"),
            f"systemctl stop {units}; systemctl reset-failed {units}; cd /etc/systemd/system;"
            f" for unit in {units}; do rm -rf $unit.d $unit.wants *.wants/$unit; done;"
            " systemctl daemon-reload",
        )
        left = [mount for mount in machine.mounts() if mount == self.target]
        for mount in left:
            machine.run("umount", "-l", mount)
        assert not left, f"still mounted: {left}\n{machine.journal(self.unit)}"

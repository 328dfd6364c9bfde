"""What a container engine does around containers: start, wait for health, stop, look inside."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from subprocess import CompletedProcess

from container.image import BUSYBOX
from container.manifests import SETTINGS, compose, compose_flags
from container.sandbox import Sandbox
from support.processes import wait_until

PATIENCE = 60.0
"""Seconds for what takes one."""

# podman's own defaults are above what a machine without CAP_SYS_RESOURCE lets it set.
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=4096:4096")


class Engine:
    """Containers in a sandbox, and the project directory that the compose file is used in."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box
        self.project = box.place / "project"
        self.shared = box.shared
        self.target = self.shared / "guest"

    # -- containers --------------------------------------------------------------------------------

    def start(self, name: str, *flags: str) -> None:
        """Start the container NAME in the background."""
        checked = any(flag.startswith("--health-cmd=") for flag in flags)
        # Timers need systemd: the tests ask for a check when they want one.
        health = "--health-interval=disable" if checked else "--no-healthcheck"
        self.box.podman("run", "--detach", f"--name={name}", *LIMITS, health, *flags)

    def output(self, *flags: str) -> CompletedProcess[str]:
        """Run a container to its end."""
        alone = ("--network=none", "--no-healthcheck")
        return self.box.try_podman("run", "--rm", *alone, *LIMITS, *flags)

    def inside(self, name: str, *command: str) -> CompletedProcess[str]:
        """Run COMMAND in the running container NAME."""
        return self.box.try_podman("exec", name, *command)

    def shell(self, name: str, script: str) -> str:
        """What SCRIPT prints, its complaints included, in the running container NAME."""
        return self.inside(name, "sh", "-c", f"exec 2>&1; {script}").stdout

    def is_healthy(self, name: str) -> bool:
        """What the engine's timer would find."""
        return self.box.try_podman("healthcheck", "run", name).returncode == 0

    def wait_healthy(self, name: str) -> None:
        """Wait as `condition: service_healthy` does; gives up at once where NAME has ended."""
        ended = "exited"
        assert wait_until(lambda: self.is_healthy(name) or self.state(name) == ended, PATIENCE)
        assert self.state(name) == "running", self.log(name)

    def state(self, name: str) -> str:
        """`running`, `exited`, ..."""
        return self.box.podman("inspect", "--format={{.State.Status}}", name).strip()

    def exit_status(self, name: str) -> int:
        """How the container NAME ended, which it soon does."""
        assert wait_until(lambda: self.state(name) == "exited", PATIENCE)
        return int(self.box.podman("inspect", "--format={{.State.ExitCode}}", name))

    def log(self, name: str) -> str:
        """What the container NAME wrote to stderr."""
        return self.box.try_podman("logs", name).stderr

    def clear(self) -> None:
        """Remove every container, whatever is mounted on the target, and all files."""
        remove = ("rm", "--all", "--force", "--time=0")
        # Again, where one that shares a namespace of another's has to go before it.
        assert wait_until(lambda: self.box.try_podman(*remove).returncode == 0, PATIENCE)
        for point in (self.target, self.project / "shared"):
            while self.box.is_mounted(point):
                self.box.run("umount", "--lazy", str(point))
        for place in (self.project, self.shared):
            inside = self.box.view(place)
            inside.mkdir(exist_ok=True)
            for entry in inside.iterdir():
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    # -- the project that the compose file describes -----------------------------------------------

    def plant(self) -> Path:
        """The directories and the file that the compose file wants beside it; as seen from here."""
        project = self.box.view(self.project)
        for name in ("app/lib", "lib", "data", "config"):
            (project / name).mkdir(parents=True)
        (project / "app/main").write_text("app")
        (project / "app/lib/name").write_text("masked")
        (project / "app/lib/secret").write_text("masked")
        (project / "lib/name").write_text("lib")
        (project / "data").chmod(0o777)
        shutil.copy(SETTINGS, project / "config/overlayd.toml")
        (project / "shared").mkdir()
        self.box.run("mount", "--rbind", str(self.shared), str(self.project / "shared"))
        return project

    def start_sidecar(self, changes: Sequence[tuple[str, str]] = ()) -> None:
        """Start the service `overlayd` of the compose file, each first word of CHANGES replaced."""
        flags = compose_flags(compose()["overlayd"], self.project)
        for old, new in changes:
            assert old in flags
            flags = [new if flag == old else flag for flag in flags if new or flag != old]
        self.start("overlayd", *flags)

    def start_guest(self, name: str = "guest", *flags: str) -> None:
        """Start a guest that stays, with the volumes of the compose file's."""
        volumes = compose_flags(compose()["guest"], self.project)
        volumes = [flag for flag in volumes if flag.startswith("--volume=")]
        self.start(name, "--network=none", *volumes, *flags, BUSYBOX, "sleep", "86400")

"""The Kubernetes manifest, its pod run as a kubelet would: order, probes, hooks, propagation.

There is no kubelet here. What is left out: devices and capabilities are all there for a privileged
container, and whether the API server accepts the manifest (test_manifests.py reads it).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from container.engine import PATIENCE, Engine
from container.manifests import kubernetes, pod_flags
from support.processes import wait_until

KILLED = 137


class Pod:
    """The manifest's pod, its volumes directories on the engine's shared mount."""

    def __init__(self, engine: Engine) -> None:
        config, pod = kubernetes()
        self.engine = engine
        self.volumes = engine.shared
        self._spec = pod["spec"]
        for volume in self._spec["volumes"]:
            place = engine.box.view(self.volumes / volume["name"])
            place.mkdir()
            if "configMap" in volume:
                assert volume["configMap"]["name"] == config["metadata"]["name"]
                for name, text in config["data"].items():
                    (place / name).write_text(text)
        self.mounted = self.volumes / "shared" / "guest"

    def container(self, name: str) -> dict[str, Any]:
        """The specification of one container."""
        every = [*self._spec["initContainers"], *self._spec["containers"]]
        (found,) = (entry for entry in every if entry["name"] == name)
        specification: dict[str, Any] = found
        return specification

    def flags(self, name: str) -> list[str]:
        """What the engine is given for the container NAME."""
        return pod_flags(self.container(name), self.volumes)

    def initialise(self) -> None:
        """Run the init containers in their order, and wait for each as its kind demands."""
        for entry in self._spec["initContainers"]:
            if entry.get("restartPolicy") == "Always":
                self.engine.start(entry["name"], "--network=none", *self.flags(entry["name"]))
                self.wait(entry["startupProbe"])
            else:
                done = self.engine.output(*self.flags(entry["name"]))
                assert done.returncode == 0, done.stderr

    def wait(self, probe: dict[str, Any]) -> None:
        """Wait until PROBE succeeds."""
        assert wait_until(lambda: self.succeeds(probe), PATIENCE), self.engine.log("overlayd")

    def succeeds(self, probe: dict[str, Any]) -> bool:
        """Whether the exec PROBE of the sidecar exits 0."""
        return self.run(probe) == 0

    def run(self, action: dict[str, Any]) -> int:
        """Run an exec probe or hook in the sidecar; its exit status."""
        status: int = self.engine.inside("overlayd", *action["exec"]["command"]).returncode
        return status


@pytest.fixture
def pod(engine: Engine) -> Iterator[Pod]:
    made = Pod(engine)
    made.initialise()
    yield made
    if engine.box.is_mounted(made.mounted):
        engine.box.run("umount", "--lazy", str(made.mounted))


def test_the_guest_sees_one_tree(pod: Pod) -> None:
    done = pod.engine.output(*pod.flags("guest"))
    assert done.returncode == 0, done.stderr
    seen = sorted(Path(line) for line in done.stdout.splitlines())
    assert [str(path.relative_to("/shared/guest")) for path in seen] == [
        ".",
        "data",
        "lib",
        "lib/name",
        "main",
    ]


def start_guest(pod: Pod) -> None:
    """The guest's container with a command that stays."""
    flags = pod.flags("guest")
    at = flags.index(pod.container("guest")["image"])
    kept = [flag for flag in flags[: at + 1] if not flag.startswith("--entrypoint=")]
    pod.engine.start("guest", "--network=none", *kept, "sleep", "86400")


def test_a_killed_sidecar_is_restarted_under_the_guest(pod: Pod) -> None:
    start_guest(pod)
    probe = pod.container("overlayd")["livenessProbe"]
    assert pod.succeeds(probe)
    pod.engine.box.podman("kill", "--signal=KILL", "overlayd")
    assert pod.engine.exit_status("overlayd") == 137
    pod.engine.box.podman("start", "overlayd")
    pod.wait(probe)
    assert pod.engine.shell("guest", "cat /shared/guest/lib/name") == "lib\n"
    said = pod.engine.shell("guest", "echo x > /shared/guest/lib/name")
    assert "Read-only file system" in said
    assert pod.engine.shell("guest", "echo kept > /shared/guest/data/file") == ""


def test_the_end_of_the_pod_leaves_no_mount(pod: Pod) -> None:
    """Guest first, then preStop, then SIGTERM for what is left: as native sidecars end."""
    start_guest(pod)
    pod.engine.box.podman("stop", "--time=0", "guest")
    hook = pod.run(pod.container("overlayd")["lifecycle"]["preStop"])
    assert hook in (0, KILLED), "the sidecar may end, and its hook with it, once nothing is mounted"
    assert not pod.engine.box.is_mounted(pod.mounted)
    pod.engine.box.podman("stop", "--time=30", "overlayd")
    assert pod.engine.exit_status("overlayd") == 0
    assert list(pod.engine.box.view(pod.mounted).iterdir()) == []

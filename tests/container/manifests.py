"""The shipped manifests as they are, and what they mean to podman.

Translating knows every key that the manifests use and no other: one that is added to a manifest
without a meaning here fails the tests.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DIRECTORY = ROOT / "container"
CONTAINERFILE = DIRECTORY / "Containerfile"
SETTINGS = DIRECTORY / "config" / "overlayd.toml"

_PROPAGATION = {"Bidirectional": "rshared", "HostToContainer": "rslave", None: "rprivate"}


def compose() -> dict[str, Any]:
    """The services of compose.yaml."""
    document = yaml.safe_load((DIRECTORY / "compose.yaml").read_text())
    assert set(document) == {"services"}
    services: dict[str, Any] = document["services"]
    return services


def kubernetes() -> tuple[dict[str, Any], dict[str, Any]]:
    """The ConfigMap and the Pod of kubernetes.yaml."""
    config, pod = yaml.safe_load_all((DIRECTORY / "kubernetes.yaml").read_text())
    assert (config["kind"], pod["kind"]) == ("ConfigMap", "Pod")
    return config, pod


def instructions() -> list[tuple[str, str]]:
    """The Containerfile's instructions, comments gone and continued lines joined."""
    lines = [
        line for line in CONTAINERFILE.read_text().splitlines() if not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    words = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(name, rest) for name, rest in words]


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, beginning with its FROM."""
    found: list[list[tuple[str, str]]] = []
    for name, rest in instructions():
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, rest))
    return found


def packages(stage: list[tuple[str, str]]) -> list[str]:
    """The Debian packages that STAGE installs."""
    (line,) = (rest for name, rest in stage if name == "RUN" and "apt-get install" in rest)
    asked = line.partition("apt-get install")[2].partition("&&")[0].split()
    return [word for word in asked if not word.startswith("-")]


# -- compose.yaml ------------------------------------------------------


def compose_flags(service: dict[str, Any], project: Path) -> list[str]:
    """What `podman run` is given for SERVICE; relative sources lie in PROJECT."""
    flags: list[str] = []
    for key, value in service.items():
        flags += _compose_flag(key, value, project)
    return [*flags, service["image"], *service["command"]]


def _compose_flag(key: str, value: Any, project: Path) -> list[str]:
    if key in ("image", "command", "build", "depends_on", "restart", "stop_grace_period"):
        return []  # of the engine around it; what matters of them has tests of its own
    if key == "volumes":
        return [f"--volume={_compose_volume(volume, project)}" for volume in value]
    if key == "healthcheck":
        assert value["test"][0] == "CMD"
        return [f"--health-cmd={json.dumps(value['test'][1:])}"]
    if key == "read_only":
        return [f"--read-only={str(value).lower()}", "--read-only-tmpfs=false"]
    if key == "network_mode":
        return [f"--network={value}"]
    names = {"cap_drop": "cap-drop", "cap_add": "cap-add", "security_opt": "security-opt"}
    names |= {"devices": "device", "tmpfs": "tmpfs"}
    return [f"--{names[key]}={_podman_spelling(entry)}" for entry in value]


def _podman_spelling(entry: str) -> str:
    """`key:value` of compose's security options is `key=value` to podman."""
    name, colon, rest = entry.partition(":")
    if name == "no-new-privileges":
        return name if rest == "true" else entry
    return f"{name}={rest}" if colon else entry


def _compose_volume(volume: str | dict[str, Any], project: Path) -> str:
    if isinstance(volume, str):
        source, target, *mode = volume.split(":")
        return ":".join([str(project / source), target, *mode])
    assert set(volume) <= {"type", "source", "target", "read_only", "bind"}
    assert volume["type"] == "bind"
    assert set(volume["bind"]) <= {"propagation", "recursive"}
    if volume.get("read_only"):
        # podman's own read-only is for the top mount alone, as `writable` asks for.
        assert volume["bind"]["recursive"] == "writable"
    access = "ro" if volume.get("read_only") else "rw"
    source = project / volume["source"]
    return f"{source}:{volume['target']}:{access},{volume['bind']['propagation']}"


# -- kubernetes.yaml ------------------------------------------------------


def pod_flags(container: dict[str, Any], volumes: Path) -> list[str]:
    """What `podman run` is given for CONTAINER; the volumes are directories in VOLUMES."""
    known = {"name", "image", "command", "args", "restartPolicy", "securityContext"}
    known |= {"startupProbe", "livenessProbe", "lifecycle", "volumeMounts"}
    assert set(container) <= known
    security = container.get("securityContext", {})
    assert set(security) <= {"privileged", "readOnlyRootFilesystem"}
    flags = ["--read-only-tmpfs=false"]
    flags += ["--privileged"] if security.get("privileged") else []
    flags += ["--read-only"] if security.get("readOnlyRootFilesystem") else []
    for mount in container["volumeMounts"]:
        assert set(mount) <= {"name", "mountPath", "readOnly", "mountPropagation"}
        mode = "ro" if mount.get("readOnly") else "rw"
        propagation = _PROPAGATION[mount.get("mountPropagation")]
        flags += [f"--volume={volumes / mount['name']}:{mount['mountPath']}:{mode},{propagation}"]
    if "command" in container:
        flags += [f"--entrypoint={json.dumps(container['command'][:1])}"]
    words = [*container.get("command", [])[1:], *container.get("args", [])]
    return [*flags, container["image"], *words]

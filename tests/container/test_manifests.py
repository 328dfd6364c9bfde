"""The image, the compose file and the Kubernetes manifest, read: they agree with each other."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from container.manifests import (
    CONTAINERFILE,
    DIRECTORY,
    ROOT,
    SETTINGS,
    compose,
    instructions,
    kubernetes,
    packages,
    stages,
)
from overlayd.cli.commands import cli

HEALTH = ["overlayd", "health", "/shared/guest"]
DOCS = ROOT / "docs" / "containers.md"


def sidecars() -> dict[str, list[str]]:
    """The daemon's command line in each of the files."""
    (default,) = (json.loads(rest) for name, rest in instructions() if name == "CMD")
    _, pod = kubernetes()
    return {
        "Containerfile": default,
        "compose.yaml": compose()["overlayd"]["command"],
        "kubernetes.yaml": pod_sidecar(pod)["args"],
    }


def pod_sidecar(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = (c for c in pod["spec"]["initContainers"] if c["name"] == "overlayd")
    sidecar: dict[str, Any] = found
    return sidecar


def split_options(words: list[str]) -> list[str]:
    """`--name=value` as two words, sorted with what follows each option."""
    text = " ".join(words).replace("=", " ", 0)
    return sorted(re.sub(r"(--[a-z-]+)=", r"\1 ", text).split())


def test_the_daemon_is_started_the_same_way_everywhere() -> None:
    lines = {name: split_options(words) for name, words in sidecars().items()}
    assert len({tuple(line) for line in lines.values()}) == 1, lines


@pytest.mark.parametrize("name", ["Containerfile", "compose.yaml", "kubernetes.yaml"])
def test_every_option_is_one_that_overlayd_has(name: str) -> None:
    words = sidecars()[name]
    command, *rest = words
    said = CliRunner().invoke(cli, [command, "--help"]).output
    options = [word.partition("=")[0] for word in rest if word.startswith("-")]
    assert options
    for option in options:
        assert re.search(rf"(^|[ ,/]){re.escape(option)}[ ,\n]", said), f"{name}: {option}"


def test_every_health_check_asks_for_the_target_that_is_mounted() -> None:
    _, pod = kubernetes()
    sidecar = pod_sidecar(pod)
    (image,) = (rest for name, rest in instructions() if name == "HEALTHCHECK")
    assert json.loads(image.partition("CMD ")[2]) == HEALTH
    assert compose()["overlayd"]["healthcheck"]["test"] == ["CMD", *HEALTH]
    for probe in ("startupProbe", "livenessProbe"):
        assert sidecar[probe]["exec"]["command"] == HEALTH
    before_stop = sidecar["lifecycle"]["preStop"]["exec"]["command"]
    assert before_stop == ["overlayd", "umount", "--lazy", HEALTH[-1]]
    assert {words[-1] for words in sidecars().values()} == {HEALTH[-1]}


def test_both_manifests_serve_the_same_table() -> None:
    config, _ = kubernetes()
    assert tomllib.loads(config["data"]["overlayd.toml"]) == tomllib.loads(SETTINGS.read_text())


def test_every_source_of_the_table_is_mounted_where_it_says() -> None:
    _, pod = kubernetes()
    wanted = {entry["host"]: entry.get("ro", False) for entry in _table()}
    mounts = {m["mountPath"]: m.get("readOnly", False) for m in pod_sidecar(pod)["volumeMounts"]}
    short = [v.split(":") for v in compose()["overlayd"]["volumes"] if isinstance(v, str)]
    binds = {target: mode == ["ro"] for _, target, *mode in short}
    for host, read_only in wanted.items():
        assert mounts[host] is read_only
        assert binds[host] is read_only


def _table() -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = tomllib.loads(SETTINGS.read_text())["dir"]
    return entries


def test_the_guest_waits_for_a_healthy_sidecar() -> None:
    guest = compose()["guest"]
    assert guest["depends_on"] == {"overlayd": {"condition": "service_healthy"}}
    _, pod = kubernetes()
    names = [container["name"] for container in pod["spec"]["initContainers"]]
    assert names == ["files", "overlayd"]
    assert pod_sidecar(pod)["restartPolicy"] == "Always" and "startupProbe" in pod_sidecar(pod)


def test_mounts_propagate_from_the_sidecar_to_the_guest_and_no_further() -> None:
    shared = {name: _compose_shared(service) for name, service in compose().items()}
    assert shared["overlayd"]["bind"]["propagation"] == "rshared"
    assert shared["guest"]["bind"]["propagation"] == "rslave" and shared["guest"]["read_only"]
    _, pod = kubernetes()
    (guest,) = pod["spec"]["containers"]
    assert _pod_shared(pod_sidecar(pod))["mountPropagation"] == "Bidirectional"
    assert _pod_shared(guest)["mountPropagation"] == "HostToContainer"
    assert _pod_shared(guest)["readOnly"]
    assert "subPath" not in _pod_shared(guest)


def _compose_shared(service: dict[str, Any]) -> dict[str, Any]:
    (found,) = (v for v in service["volumes"] if isinstance(v, dict) and v["target"] == "/shared")
    volume: dict[str, Any] = found
    return volume


def _pod_shared(container: dict[str, Any]) -> dict[str, Any]:
    (found,) = (m for m in container["volumeMounts"] if m["name"] == "shared")
    mount: dict[str, Any] = found
    return mount


def test_every_volume_of_the_pod_exists_and_is_used() -> None:
    _, pod = kubernetes()
    containers = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    used = {mount["name"] for container in containers for mount in container["volumeMounts"]}
    assert used == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_only_the_sidecar_is_privileged() -> None:
    _, pod = kubernetes()
    containers = [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]
    assert [c["name"] for c in containers if "securityContext" in c] == ["overlayd"]
    assert "privileged" not in compose()["overlayd"]
    assert compose()["overlayd"]["cap_drop"] == ["ALL"]
    assert not {"cap_add", "devices", "security_opt"} & set(compose()["guest"])


def test_the_probes_leave_overlayd_health_its_time() -> None:
    """It gives up by itself after two seconds, and Python has to start."""
    _, pod = kubernetes()
    for probe in ("startupProbe", "livenessProbe"):
        assert pod_sidecar(pod)[probe]["timeoutSeconds"] > 2
    assert compose()["overlayd"]["healthcheck"]["timeout"] == "5s"


def test_the_image_is_built_without_questions_and_keeps_no_tools() -> None:
    build, final = stages()
    assert "gcc" in packages(build)
    assert set(packages(final)) == {"libfuse3-3", "python3"}
    for stage in (build, final):
        (line,) = (rest for name, rest in stage if name == "RUN" and "apt-get" in rest)
        assert "DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends" in line
        assert line.endswith("rm -rf /var/lib/apt/lists/*")
    settings = dict(final)
    assert settings["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(settings["ENTRYPOINT"]) == ["overlayd"]
    assert "ADD" not in dict(instructions())


def test_the_context_holds_what_is_copied_and_little_more() -> None:
    copied = {word for name, rest in stages()[0] if name == "COPY" for word in rest.split()[:-1]}
    let_in = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    assert let_in == copied
    assert all((ROOT / name).exists() for name in copied)


def test_the_page_says_what_each_capability_is_for() -> None:
    table = set(re.findall(r"^\| `([A-Z_]+)` \|", DOCS.read_text(), re.MULTILINE))
    assert table == set(compose()["overlayd"]["cap_add"])


@pytest.mark.parametrize("name", ["compose.yaml", "kubernetes.yaml", "config/overlayd.toml"])
def test_the_files_are_named_where_they_are_explained(name: str) -> None:
    assert f"container/{name}" in DOCS.read_text()
    assert (DIRECTORY / name).is_file()


def test_the_versions_agree() -> None:
    (version,) = re.findall(r'__version__ = "(.+)"', _package("__init__.py").read_text())
    _, pod = kubernetes()
    assert pod_sidecar(pod)["image"].endswith(f":{version}")


def _package(name: str) -> Path:
    return ROOT / "src" / "overlayd" / name


def test_the_containerfile_has_no_instruction_that_podman_would_ignore() -> None:
    known = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "STOPSIGNAL"}
    known |= {"HEALTHCHECK", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in instructions()} == known
    assert "--format docker" in CONTAINERFILE.read_text()  # else there is no HEALTHCHECK

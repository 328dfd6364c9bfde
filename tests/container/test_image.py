"""What the Containerfile builds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from container.engine import Engine
from container.image import OVERLAYD
from overlayd import __version__


@pytest.fixture
def settings(built: tuple[Engine, str]) -> dict[str, Any]:
    engine, _ = built
    (found,) = json.loads(engine.box.podman("image", "inspect", OVERLAYD))
    image: dict[str, Any] = found
    return image


def test_pyfuse3_is_compiled_in_the_build(built: tuple[Engine, str]) -> None:
    assert "Building wheel for pyfuse3 (pyproject.toml): finished with status 'done'" in built[1]


def test_the_engine_is_told_how_to_check_and_stop_it(settings: dict[str, Any]) -> None:
    assert settings["Healthcheck"]["Test"] == ["CMD", "overlayd", "health", "/shared/guest"]
    assert settings["Config"]["StopSignal"] == "SIGTERM"
    assert settings["Config"]["Entrypoint"] == ["overlayd"]
    assert not settings["Config"].get("ExposedPorts")


def test_it_runs_with_nothing_given(engine: Engine) -> None:
    """No capability, no device, a root file system that cannot be written."""
    done = engine.output(
        "--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", OVERLAYD, "--version"
    )
    assert (done.returncode, done.stdout) == (0, f"overlayd, version {__version__}\n")


def test_the_compiler_and_pip_stayed_behind(engine: Engine) -> None:
    script = "for c in gcc pip pip3 fusermount3; do command -v $c && echo found; done; true"
    done = engine.output("--entrypoint=/bin/sh", OVERLAYD, "-c", script)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_extension_is_in_it(engine: Engine) -> None:
    script = "from overlayd.kernel import wire; print(wire.state())"
    done = engine.output("--entrypoint=/opt/overlayd/bin/python", OVERLAYD, "-c", script)
    assert done.stdout == "off (nothing is mounted)\n"


def test_its_modules_are_compiled(engine: Engine) -> None:
    """A read-only root file system would have them compiled at every health check."""
    script = "cd /opt/overlayd/lib/python3*/site-packages/overlayd && ls cli/__pycache__"
    done = engine.output("--entrypoint=/bin/sh", OVERLAYD, "-c", script)
    assert "health.cpython" in done.stdout


@pytest.mark.parametrize(
    ("given", "reason"),
    [((), "/dev/fuse is missing"), (("--volume=/dev/fuse:/dev/fuse",), "operation not permitted")],
    ids=["nothing", "a volume"],
)
def test_without_the_device_it_says_what_to_give(
    engine: Engine, given: tuple[str, ...], reason: str
) -> None:
    """A volume gives the name and not the right, which is the device cgroup's."""
    flags = (*given, "--cap-add=SYS_ADMIN", f"--volume={engine.shared}:/shared:rshared")
    words = ("mount", "-f", "-o", "x-mount.mkdir", "--dir=/etc::/", "/shared/guest")
    done = engine.output(*flags, OVERLAYD, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert reason in done.stderr
    assert "--device /dev/fuse" in done.stderr

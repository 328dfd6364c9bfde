"""The README's examples, as they stand there, on a /srv, /etc and /run of the test's own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from aliases.examples import rendered
from aliases.private_mounts import in_private_mounts, mount_overlay, mount_tmpfs
from support.readme import block, section


def run(script: str) -> str:
    overlayd = f'overlayd() {{ {shlex.quote(sys.executable)} -m overlayd "$@"; }}'
    done = subprocess.run(
        ["bash", "-ec", f"{overlayd}\n{script}"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(os.path.abspath(p) for p in sys.path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def own_machine(place: Path) -> None:
    """The directories that the examples use, empty or thrown away afterwards."""
    mount_tmpfs(Path("/srv"))
    mount_tmpfs(Path("/run"))
    mount_tmpfs(place / "layers")
    for name in ("upper", "work"):
        (place / "layers" / name).mkdir()
    mount_overlay(Path("/etc"), Path("/etc"), place / "layers/upper", place / "layers/work")
    Path("/etc/overlayd").mkdir(exist_ok=True)
    run(block(section("## Three ways to use it"), 0))


def test_what_check_and_explain_print(tmp_path: Path) -> None:
    written = section("## Look at it")

    def scenario() -> str:
        own_machine(tmp_path)
        Path("/srv/app/out").mkdir()
        return rendered(written, tmp_path)

    # The blank line between two commands of one block is no output.
    squeezed = re.sub(r"\n\n(?=\$ )", "\n", written)
    assert in_private_mounts(scenario) == squeezed


def test_around_one_command(tmp_path: Path) -> None:
    command = block(section("### 1. Around one command"), 1)

    def scenario() -> str:
        own_machine(tmp_path)
        return run(command)

    names = {Path(line).name for line in in_private_mounts(scenario).splitlines()}
    assert {"main", "lib", "x"} <= names


def test_the_service_without_systemd(tmp_path: Path) -> None:
    text = section("### 2. As a service, before the guests")
    service = [line for line in block(text, 0).splitlines() if "systemctl" not in line]
    service = [line.replace("/run/overlayd/mnt/demo", "/run/guest") for line in service]
    by_hand = [line for line in block(text, 1).splitlines() if "fstab" not in line]
    *configure, look = service
    make, mount, umount, _ = by_hand

    def scenario() -> str:
        own_machine(tmp_path)
        return run("\n".join([*configure, make, mount, look, umount]))

    assert in_private_mounts(scenario).splitlines()[-1] == "mounted"

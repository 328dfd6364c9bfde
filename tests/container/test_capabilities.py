"""Each capability of the compose file is needed, for just what docs/containers.md says."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from container.engine import Engine
from container.manifests import compose

# What the guest tries, and how a user of it would notice. `other` is user 2000, group 2000.
ATTEMPTS = {
    "root reads": "cat roots",
    "root reads another's": "cat others",
    "root writes another's": "echo more >> others",
    "root gives away": "touch data/given && chown 5:5 data/given",
    "root changes another's mode": "chmod 0640 others",
    "root sets the set-gid bit": "mkdir data/team && chgrp 7 data/team && chmod 2770 data/team"
    " && test -g data/team",
    "a user reads": "as_other cat roots",
    "a user creates": "as_other touch data/theirs && stat -c %u:%g data/theirs | grep 2000:2000",
}
FAILS_WITHOUT = {
    "DAC_OVERRIDE": {"root reads another's", "root writes another's"},
    "CHOWN": {"root gives away", "root sets the set-gid bit"},
    "FOWNER": {"root changes another's mode"},
    "FSETID": {"root sets the set-gid bit"},
    "SETUID": {"a user reads", "a user creates"},
    "SETGID": {"a user reads", "a user creates"},
}
LISTED = compose()["overlayd"]["cap_add"]
either_way = pytest.mark.parametrize("way", ["auto", "off"])


@pytest.fixture(scope="module")
def guest(built: tuple[Engine, str]) -> Iterator[Engine]:
    """A guest that sees one mount after another come and go."""
    engine, _ = built
    engine.clear()
    engine.plant()
    engine.start_guest()
    engine.shell("guest", "echo other:x:2000:2000::/:/bin/sh >> /etc/passwd")
    yield engine
    engine.clear()


def configure(engine: Engine, way: str) -> None:
    """One preopen, whose data goes one WAY."""
    settings = f'passthrough = "{way}"\n[[dir]]\nhost = "/srv/data"\nguest = "/"\n'
    engine.box.view(engine.project / "config/overlayd.toml").write_text(settings)


def failures(engine: Engine, without: set[str], way: str = "auto") -> set[str]:
    """The attempts that fail with a sidecar WITHOUT some of the listed capabilities."""
    configure(engine, way)
    engine.box.podman("rm", "--force", "--ignore", "--time=30", "overlayd")
    plant_files(engine)
    engine.start_sidecar([(f"--cap-add={name}", "") for name in without])
    engine.wait_healthy("overlayd")
    script = 'cd /shared/guest || exit; as_other() { su other -c "$*"; }\n'
    for name, attempt in ATTEMPTS.items():
        script += f'({attempt}) >/dev/null 2>&1 || echo "{name}"\n'
    return set(engine.shell("guest", script).splitlines())


def plant_files(engine: Engine) -> None:
    data = engine.box.view(engine.project / "data")
    engine.box.run("sh", "-c", f"rm -rf {engine.project}/data/*")
    (data / "data").mkdir()
    (data / "data").chmod(0o777)
    (data / "roots").write_text("roots")
    (data / "others").write_text("others")
    os.chown(data / "others", 1000, 1000)
    (data / "others").chmod(0o600)


@either_way
def test_with_all_of_them_everything_works(guest: Engine, way: str) -> None:
    assert failures(guest, set(), way) == set()


@either_way
@pytest.mark.parametrize("capability", [name for name in LISTED if name != "SYS_ADMIN"])
def test_what_fails_without_it(guest: Engine, capability: str, way: str) -> None:
    assert failures(guest, {capability}, way) == FAILS_WITHOUT[capability]


def test_sys_admin_alone_serves_a_guest_that_is_root(guest: Engine) -> None:
    """And nobody but root, with nothing of what root may do to others: closed, not open."""
    everything_else = set(LISTED) - {"SYS_ADMIN"}
    assert failures(guest, everything_else) == set().union(*FAILS_WITHOUT.values())


def test_without_sys_admin_it_says_what_to_give(guest: Engine) -> None:
    guest.box.podman("rm", "--force", "--ignore", "--time=30", "overlayd")
    configure(guest, "auto")
    guest.start_sidecar([("--cap-add=SYS_ADMIN", "")])
    assert guest.exit_status("overlayd") == 1
    (line,) = guest.log("overlayd").splitlines()
    assert line.startswith("overlayd: error: mounting needs CAP_SYS_ADMIN")
    assert "--cap-add SYS_ADMIN" in line

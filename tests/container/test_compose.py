"""The compose file's two services under a real engine, from the first start to every end."""

from __future__ import annotations

import json
import os
import time

import pytest

from container.engine import PATIENCE, Engine
from container.image import BUSYBOX
from container.manifests import compose, compose_flags
from support.processes import wait_until

STOPS_WITHIN = 20.0
"""Seconds for a stop, on a machine with far too much to do; a third of one when it is quiet."""


@pytest.fixture
def running(engine: Engine) -> Engine:
    """Both services, the guest started when the sidecar was healthy."""
    return started(engine)


def started(engine: Engine, settings: str = "") -> Engine:
    """The same, with SETTINGS before what the file of settings has."""
    config = engine.plant() / "config/overlayd.toml"
    config.write_text(settings + config.read_text())
    engine.start_sidecar()
    engine.wait_healthy("overlayd")
    engine.start_guest()
    return engine


def test_the_guest_starts_when_the_sidecar_is_healthy_and_not_before(engine: Engine) -> None:
    project = engine.plant()
    config = project / "config/overlayd.toml"
    settings = config.read_text()
    config.unlink()
    os.mkfifo(config)
    engine.start_sidecar()  # it now waits for its configuration
    assert not engine.is_healthy("overlayd")
    config.write_text(settings)
    engine.wait_healthy("overlayd")
    done = engine.output(*compose_flags(compose()["guest"], engine.project))
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == [
        "/shared/guest",
        "/shared/guest/data",
        "/shared/guest/lib",
        "/shared/guest/lib/name",
        "/shared/guest/main",
    ]


@pytest.mark.parametrize("way", ["auto", "off"])
def test_one_tree_with_masks_and_read_only(engine: Engine, way: str) -> None:
    running = started(engine, f'passthrough = "{way}"\n')
    status = running.inside("overlayd", "overlayd", "status", "/shared/guest").stdout
    assert ("through the daemon: switched off" in status) is (way == "off")
    assert running.shell("guest", "cat /shared/guest/lib/name") == "lib"
    assert "No such file" in running.shell("guest", "cat /shared/guest/lib/secret")
    for change in ("touch main", "echo x > lib/name", "rm lib/name", "mkdir new"):
        assert "Read-only file system" in running.shell("guest", f"cd /shared/guest; {change}")
    assert running.shell("guest", "echo kept > /shared/guest/data/file") == ""
    assert running.box.view(running.project / "data/file").read_text() == "kept\n"
    script = "cd /shared/guest/data; head -c 300000 /dev/zero > large; wc -c < large; cmp large -"
    assert running.shell("guest", f"head -c 300000 /dev/zero | ({script})") == "300000\n"


def test_everybody_is_served_as_who_they_are(running: Engine) -> None:
    running.start_guest("other", "--user=2000:3000")
    assert (
        running.shell("other", "touch /shared/guest/data/theirs; cat /shared/guest/main") == "app"
    )
    made = running.box.view(running.project / "data/theirs").stat()
    assert (made.st_uid, made.st_gid) == (2000, 3000)


def test_supplementary_groups_count_where_the_daemon_sees_the_caller(running: Engine) -> None:
    """Its process lies in another PID namespace; sharing one is the documented cure."""
    private = running.box.view(running.project / "app/private")
    private.write_text("for the group")
    os.chown(private, 0, 3000)
    private.chmod(0o640)
    in_the_group = ("--user=2000:2000", "--group-add=3000")
    running.start_guest("apart", *in_the_group)
    running.start_guest("beside", *in_the_group, "--pid=container:overlayd")
    assert "Permission denied" in running.shell("apart", "cat /shared/guest/private")
    assert running.shell("beside", "cat /shared/guest/private") == "for the group"


def test_sigterm_unmounts_at_once_and_exits_0(running: Engine) -> None:
    busy = "exec 3< /shared/guest/main; cd /shared/guest/lib; echo ready; sleep 86400"
    running.box.podman("exec", "--detach", "guest", "sh", "-c", busy)
    assert wait_until(
        lambda: "sleep 86400" in running.shell("guest", "ps | grep -v grep"), PATIENCE
    )
    start = time.monotonic()
    running.box.podman("stop", "--time=60", "overlayd")
    assert time.monotonic() - start < STOPS_WITHIN
    assert running.exit_status("overlayd") == 0
    assert not running.box.is_mounted(running.target)
    assert running.shell("guest", "ls -A /shared/guest") == ""
    assert running.box.view(running.target).stat().st_mode & 0o7777 == 0o555


def test_the_guest_cannot_write_beside_the_mount(running: Engine) -> None:
    """Not even as root, which a mode does not stop: overlayd would refuse to hide such files."""
    running.box.podman("stop", "overlayd")
    assert "Read-only file system" in running.shell("guest", "touch /shared/guest/stray")
    running.box.podman("start", "overlayd")
    running.wait_healthy("overlayd")
    assert (
        running.shell("guest", "echo back > /shared/guest/data/file; cat /shared/guest/main")
        == "app"
    )


def test_kill_and_restart(running: Engine) -> None:
    """The dead mount stays on the shared directory; the next start clears it, for guests too."""
    first_start = compose_flags(compose()["guest"], running.project)
    volumes = [flag for flag in first_start if flag.startswith("--volume=")]
    private = [flag.replace("rslave", "rprivate") for flag in volumes]
    running.start("private", "--network=none", *private, BUSYBOX, "sleep", "86400")
    running.box.podman("kill", "--signal=KILL", "overlayd")
    assert running.exit_status("overlayd") == 137
    assert running.box.is_mounted(running.target)
    for name in ("guest", "private"):
        assert is_dead(running, name)

    running.box.podman("start", "overlayd")
    running.wait_healthy("overlayd")
    assert running.shell("guest", "cat /shared/guest/lib/name") == "lib"
    assert is_dead(running, "private")  # as docs/containers.md warns
    running.box.podman("stop", "overlayd")
    assert not running.box.is_mounted(running.target)


def is_dead(engine: Engine, name: str) -> bool:
    return "not connected" in engine.shell(name, "ls /shared/guest/lib")


def test_a_dead_mount_is_unhealthy(running: Engine) -> None:
    """Seen from another container with the same volume, as a kubelet's probe would."""
    running.box.podman("kill", "--signal=KILL", "overlayd")
    assert running.exit_status("overlayd") == 137
    flags = compose_flags(compose()["overlayd"], running.project)
    (volume,) = (flag for flag in flags if flag.endswith(":/shared:rw,rshared"))
    done = running.output(volume, "overlayd", "health", "/shared/guest")
    assert (done.returncode, done.stderr) == (
        1,
        "overlayd: error: /shared/guest is dead: its daemon is gone; mount again,"
        " or clear it with overlayd umount\n",
    )


def test_a_stopped_daemon_is_unhealthy(running: Engine) -> None:
    assert running.is_healthy("overlayd")
    running.box.podman("kill", "--signal=STOP", "overlayd")
    assert not running.is_healthy("overlayd")
    running.box.podman("kill", "--signal=CONT", "overlayd")
    running.wait_healthy("overlayd")


def test_an_edited_table_is_reloaded(running: Engine) -> None:
    """Edited as editors and ConfigMaps do it: another file takes the name."""
    config = running.box.view(running.project / "config/overlayd.toml")
    new = config.with_name("new")
    new.write_text(config.read_text().replace('guest = "/lib"', 'guest = "/usr/lib"'))
    new.rename(config)
    done = running.inside("overlayd", "overlayd", "reload", "/shared/guest")
    assert done.returncode == 0, done.stderr
    assert running.shell("guest", "cat /shared/guest/usr/lib/name") == "lib"
    assert running.shell("guest", "cat /shared/guest/lib/name") == "masked"


def test_a_volume_without_propagation_is_warned_of(engine: Engine) -> None:
    engine.plant()
    shared = f"--volume={engine.project}/shared:/shared:rw,"
    engine.start_sidecar([(f"{shared}rshared", f"{shared}rprivate")])
    engine.wait_healthy("overlayd")
    assert wait_until(lambda: '"level": "warning"' in engine.log("overlayd"), PATIENCE)
    assert "bind-propagation=rshared" in engine.log("overlayd")
    assert not engine.box.is_mounted(engine.target)


def test_the_log_is_one_json_object_per_line(running: Engine) -> None:
    running.shell("guest", "touch /shared/guest/main")
    running.box.podman("stop", "overlayd")
    lines = [json.loads(line) for line in running.log("overlayd").splitlines()]
    messages = [str(line["message"]) for line in lines]
    warnings = [str(line["message"]) for line in lines if line["level"] != "info"]
    assert warnings and all("/main" in message for message in warnings)  # the denials, no more
    assert messages[0] == "serving /shared/guest"
    assert messages[-1] == "unmounting /shared/guest: SIGTERM"

"""overlayd@.service under a real systemd: it starts, tells how it is, ends, and comes back."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.instance import Instance
from support.machine import PATIENCE, Machine
from support.processes import wait_until


def test_it_starts_and_everybody_sees_the_mount(machine: Machine, instance: Instance) -> None:
    instance.start()
    assert instance.is_served()
    assert machine.show(instance.unit, "StatusText") == [f"Serving {instance.target}"]
    assert machine.systemctl("stop", instance.unit).returncode == 0
    assert machine.show(instance.unit, "ActiveState", "Result") == ["inactive", "success"]
    assert instance.target not in machine.mounts()


def test_other_users_get_in_though_overlayd_had_closed_its_directory(
    machine: Machine, instance: Instance
) -> None:
    # As `overlayd mount` leaves it where it was there first.
    machine.run("mkdir", "-p", "/run/overlayd")
    machine.run("chmod", "700", "/run/overlayd")
    instance.start()
    nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    assert (
        machine.run(*nobody, "cat", f"{instance.target}/file").stdout == f"I am {instance.name}\n"
    )


def test_one_instance_leaves_the_others_alone(
    machine: Machine, instance: Instance, another: Instance
) -> None:
    instance.start()
    another.start()
    machine.systemctl("stop", instance.unit, check=True)
    assert another.is_served()
    assert machine.run("overlayd", "health", another.target).returncode == 0
    machine.run("overlayd", "umount", another.target)  # finds the record of it
    assert wait_until(lambda: machine.state(another.unit) == "inactive", PATIENCE)
    assert machine.show(another.unit, "Result") == ["success"]


BAD = {
    "unknown-key": 'hots = "/srv"',
    "no-toml": "[[dir",
    "missing-source": '[[dir]]\nhost = "/nowhere"\nguest = "/n"\n',
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_an_invalid_configuration_is_one_line_and_a_failed_unit(
    machine: Machine, instance: Instance, text: str
) -> None:
    machine.write(instance.config, text)
    assert machine.systemctl("start", instance.unit).returncode != 0
    assert machine.show(instance.unit, "ActiveState", "ExecMainStatus", "NRestarts") == [
        "failed",
        "2",
        "0",
    ]
    said = [line for line in machine.journal(instance.unit).splitlines() if "overlayd:" in line]
    (line,) = [line for line in said if line.startswith("overlayd: error: ")]
    assert instance.config in line


def test_a_missing_configuration_is_named(machine: Machine, instance: Instance) -> None:
    machine.run("rm", instance.config)
    assert machine.systemctl("start", instance.unit).returncode != 0
    assert f"overlayd: error: {instance.config}: no such file" in machine.journal(instance.unit)


# -- reload -------------------------------------------------------------------------------------


def test_reload_changes_the_namespace_of_the_running_daemon(
    machine: Machine, instance: Instance
) -> None:
    daemon = instance.start()
    machine.write("/srv/more/news", "news\n")
    instance.configure(instance.entry("/srv/more", "/more", ro=True))
    machine.systemctl("reload", instance.unit, check=True)
    assert machine.run("cat", f"{instance.target}/more/news").stdout == "news\n"
    assert instance.is_served()
    assert machine.main_pid(instance.unit) == daemon


def test_a_reload_that_is_refused_changes_nothing(machine: Machine, instance: Instance) -> None:
    daemon = instance.start()
    machine.write(instance.config, BAD["unknown-key"])
    assert machine.systemctl("reload", instance.unit).returncode != 0
    assert instance.is_served()
    assert machine.main_pid(instance.unit) == daemon
    assert "hots" in machine.journal(instance.unit)
    (status,) = machine.show(instance.unit, "StatusText")
    assert status.startswith(f"Serving {instance.target}; not reloaded: {instance.config}: ")
    instance.configure()
    machine.systemctl("reload", instance.unit, check=True)
    assert machine.show(instance.unit, "StatusText") == [f"Serving {instance.target}"]


def test_a_hangup_reloads_too(machine: Machine, instance: Instance) -> None:
    daemon = instance.start()
    machine.write("/srv/more/news", "news\n")
    instance.configure(instance.entry("/srv/more", "/more", ro=True))
    machine.kill(instance.unit, signal.SIGHUP)
    news = f"{instance.target}/more/news"
    assert wait_until(lambda: machine.run("cat", news, check=False).returncode == 0, PATIENCE)
    assert wait_until(lambda: machine.show(instance.unit, "SubState") == ["running"], PATIENCE)
    assert machine.main_pid(instance.unit) == daemon


# -- ends ---------------------------------------------------------------------------------------


def test_it_comes_back_after_a_kill_every_time(machine: Machine, instance: Instance) -> None:
    daemon = instance.start()
    for _ in range(2):
        killed = machine.kill(instance.unit, signal.SIGKILL)
        assert killed == daemon
        assert instance.comes_back(killed), machine.journal(instance.unit)
        daemon = machine.main_pid(instance.unit)
    assert machine.run("overlayd", "health", instance.target).returncode == 0


def test_between_a_crash_and_the_restart_nobody_writes_into_an_empty_directory(
    machine: Machine, instance: Instance
) -> None:
    instance.drop_in(instance.unit, "[Service]\nRestartSec=1h")
    instance.start()
    machine.kill(instance.unit, signal.SIGKILL)
    assert wait_until(lambda: machine.show(instance.unit, "SubState") == ["auto-restart"], PATIENCE)
    wrote = machine.run("touch", f"{instance.target}/data/lost", check=False)
    assert "Transport endpoint is not connected" in wrote.stderr
    machine.systemctl("restart", instance.unit, check=True)
    assert instance.is_served()


def test_stopping_does_not_wait_for_who_uses_the_mount(
    machine: Machine, instance: Instance
) -> None:
    instance.start()
    code = "import os, sys; os.chdir(sys.argv[1]); print(flush=True); sys.stdin.read()"
    inside = machine.enter("python3", "-c", code, f"{instance.target}/data")
    with subprocess.Popen(inside, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == b"\n"
        machine.systemctl("stop", instance.unit, check=True)
        assert machine.show(instance.unit, "ActiveState", "Result") == ["inactive", "success"]
        assert instance.target not in machine.mounts()
        assert user.poll() is None
        user.communicate()


def test_a_daemon_that_must_be_killed_to_stop_leaves_no_mount(
    machine: Machine, instance: Instance
) -> None:
    instance.drop_in(instance.unit, "[Service]\nKillSignal=SIGCONT\nTimeoutStopSec=1")
    instance.start()
    machine.systemctl("stop", instance.unit)
    assert machine.show(instance.unit, "ActiveState", "Result") == ["failed", "timeout"]
    assert instance.target not in machine.mounts()


# -- the watchdog -------------------------------------------------------------------------------


def test_a_daemon_that_answers_no_requests_is_replaced(
    machine: Machine, instance: Instance
) -> None:
    instance.drop_in(instance.unit, "[Service]\nWatchdogSec=5")
    instance.start()
    started = machine.show(instance.unit, "WatchdogTimestampMonotonic")

    def beats() -> bool:
        return machine.show(instance.unit, "WatchdogTimestampMonotonic") != started

    assert wait_until(beats, PATIENCE), "it gives no sign of life"
    stopped = machine.kill(instance.unit, signal.SIGSTOP)
    assert instance.comes_back(stopped), machine.journal(instance.unit)
    said = machine.journal(instance.unit)
    assert "Watchdog timeout" in said
    assert "Fatal Python error: Aborted" in said, "the log shows what the daemon was doing"


# -- what would be wrong with it ----------------------------------------------------------------


@pytest.mark.parametrize("setting", ["PrivateMounts", "ProtectSystem", "PrivateIPC"])
def test_what_the_unit_warns_of_hides_the_mount(
    machine: Machine, instance: Instance, setting: str
) -> None:
    """Why the list is there; and that the tests here would notice."""
    instance.drop_in(instance.unit, f"[Service]\n{setting}=yes")
    instance.start()
    assert machine.state(instance.unit) == "active"
    assert instance.target not in machine.mounts()
    assert not instance.is_served()


def test_what_the_machine_does_stays_inside(machine: Machine, tmp_path: Path) -> None:
    """The canary of the tests themselves: a throw-away root keeps what happens in it."""
    name = f"overlayd-canary-{os.getpid()}"
    canary = Path("/tmp", name)
    canary.write_text("alive")
    try:
        places = [f"/{place}/{name}" for place in ("tmp", "etc", "var/tmp", "run", "usr/local")]
        for place in places:
            machine.write(place, "inside")
        settings = ("-p", "PrivateTmp=yes", "-p", "ProtectSystem=full")
        script = f"rm -rf /tmp/* /var/tmp/* /etc/{name}"
        machine.run("systemd-run", "--wait", "-q", *settings, "sh", "-c", script, check=False)
        assert canary.read_text() == "alive"
        assert not [place for place in places[1:] if Path(place).exists()]
        sysctl = "/proc/sys/kernel/hostname"
        assert machine.run("sh", "-c", f"echo x > {sysctl}", check=False).returncode != 0
    finally:
        canary.unlink()

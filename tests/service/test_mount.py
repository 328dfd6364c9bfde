"""`overlayd mount`: live when it returns, and careful with what lies on the target before."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.live import (
    daemon_of,
    foreground,
    is_live,
    kill,
    make_dirs,
    make_target,
    mount,
    times_mounted,
    type_and_name,
)
from support.mounting import detach, is_mounted
from support.processes import (
    attempt,
    command,
    complaint,
    ends,
    has_ended,
    in_child,
    outcome,
    stopped,
)


def test_it_is_live_when_mount_returns_and_gone_when_umount_does(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    daemon = mount(target, source)
    assert (target / "file").read_text() == "source"
    assert not has_ended(daemon)
    done = attempt("umount", str(target))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert has_ended(daemon)
    assert not is_mounted(target)
    assert os.listdir(target) == []


def test_the_daemon_lets_go_of_its_parent(tmp_path: Path, runtime_directory: Path) -> None:
    """No pipe, terminal, session or working directory of the caller's is kept."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    heard, told = os.pipe()
    words = command("mount", "--dir", "source::/", "target")
    # A caller that reads until the end of file waits for whoever holds the other end.
    done = subprocess.run(
        words, capture_output=True, cwd=tmp_path, pass_fds=(told,), timeout=20, check=True
    )
    os.close(told)
    assert (done.stdout, done.stderr) == (b"", b"")
    daemon = daemon_of(target)
    assert in_child(lambda: os.read(heard, 1), seconds=5) == b""
    os.close(heard)
    assert os.readlink(f"/proc/{daemon}/cwd") == "/"
    assert os.getsid(daemon) != os.getsid(0)
    streams = [os.readlink(f"/proc/{daemon}/fd/{number}") for number in range(3)]
    assert streams == ["/dev/null"] * 3
    assert type_and_name(target) == ("fuse.overlayd", str(source))
    assert attempt("umount", str(target)).returncode == 0


def test_it_starts_with_all_streams_closed(tmp_path: Path) -> None:
    """As cron and some supervisors start things: no descriptor may be taken for a stream."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    words = command("mount", "--dir", f"{source}::/", str(target))
    shell = 'exec "$@" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", shell, "sh", *words], timeout=20, check=False)
    assert done.returncode == 0
    assert (target / "file").read_text() == "source"
    assert attempt("umount", str(target)).returncode == 0


def test_it_starts_with_signals_blocked_and_ignored(tmp_path: Path) -> None:
    """Masks and dispositions are inherited, and must not make the daemon deaf."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)

    def deafen() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGCHLD))

    words = command("mount", "--dir", f"{source}::/", str(target))
    done = subprocess.run(
        words, capture_output=True, text=True, preexec_fn=deafen, timeout=20, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    daemon = daemon_of(target)
    os.kill(daemon, signal.SIGTERM)
    assert ends(daemon)
    assert not is_mounted(target)


def test_in_the_foreground_it_stays_and_logs_to_stderr(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    with foreground(target, f"{source}::/") as process:
        assert in_child(lambda: is_live(target))
        assert process.poll() is None
        process.terminate()
        _, log = process.communicate(timeout=10)
        assert process.returncode == 0
    assert not is_mounted(target)
    assert [line.split()[2] for line in log.splitlines()] == ["INFO"] * 3
    assert all(words in log for words in (str(target), "read and written", "SIGTERM"))


def test_log_lines_are_json_objects_where_asked_for(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    log = tmp_path / "log"
    mount(target, source, "--log-format", "json", "--log-file", str(log))
    assert attempt("umount", str(target)).returncode == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert lines[0]["level"] == "info"
    assert str(target) in lines[0]["message"]


# -- what lies on the target before ---------------------------------------------------------------


def test_a_dead_mount_of_ours_is_cleared(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    for _ in range(2):
        kill(mount(target, source))
        assert outcome(os.listdir, target) in ("ENOTCONN", "ECONNABORTED")
    mount(target, source)
    assert times_mounted(target) == 1
    assert (target / "file").read_text() == "source"
    assert attempt("umount", str(target)).returncode == 0


def test_a_dead_mount_is_taken_off_by_umount(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    kill(mount(target, source))
    assert attempt("umount", str(target)).returncode == 0
    assert not is_mounted(target)


def test_a_live_mount_of_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    (one, two), target = make_dirs(tmp_path, "one", "two"), make_target(tmp_path)
    daemon = mount(target, one)
    line = complaint(attempt("mount", "--dir", f"{two}::/", str(target)), 1)
    assert str(target) in line and "--replace" in line and "overlayd umount" in line
    assert (target / "file").read_text() == "one"
    assert daemon_of(target) == daemon and times_mounted(target) == 1
    assert attempt("umount", str(target)).returncode == 0


def test_a_live_mount_whose_daemon_hangs_is_refused_in_time(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    daemon = mount(target, source, "--cache", "none")
    with stopped(daemon):
        complaint(attempt("mount", "--dir", f"{source}::/", str(target), seconds=15), 1)
    assert (target / "file").read_text() == "source"
    assert attempt("umount", str(target)).returncode == 0


def test_replace_takes_the_place_of_a_live_mount(tmp_path: Path) -> None:
    (one, two), target = make_dirs(tmp_path, "one", "two"), make_target(tmp_path)
    former = mount(target, one)
    with (target / "file").open() as still_open:
        successor = mount(target, two, "--replace")
        assert (target / "file").read_text() == "two"
        assert still_open.read() == "one"
    assert successor != former
    assert ends(former)
    assert daemon_of(target) == successor and times_mounted(target) == 1
    assert attempt("umount", str(target)).returncode == 0


def test_replace_on_a_free_target_just_mounts(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    mount(target, source, "--replace")
    assert attempt("umount", str(target)).returncode == 0


def test_replace_leaves_the_old_mount_where_the_new_table_is_wrong(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    mount(target, source)
    complaint(attempt("mount", "--replace", "--dir", "/nowhere::/", str(target)), 2)
    assert (target / "file").read_text() == "source"
    assert attempt("umount", str(target)).returncode == 0


@pytest.mark.parametrize("options", [(), ("--replace",), ("--replace", "-o", "nonempty")])
def test_mounts_of_others_are_never_taken_off(tmp_path: Path, options: tuple[str, ...]) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    subprocess.run(["mount", "-t", "tmpfs", "theirs", str(target)], check=True)
    try:
        (target / "theirs").touch()
        done = attempt("mount", *options, "--dir", f"{source}::/", str(target))
        if "nonempty" in options:  # mounted on top; theirs comes back afterwards
            assert done.returncode == 0, done.stderr
            assert times_mounted(target) == 2
            assert attempt("umount", str(target)).returncode == 0
        else:
            assert "not empty" in complaint(done, 1)
        assert type_and_name(target)[0] == "tmpfs"
        assert os.listdir(target) == ["theirs"]
    finally:
        detach(target)


def test_a_mount_over_ours_survives_the_end_of_the_daemon(tmp_path: Path) -> None:
    """Stopping overlayd must not take off what somebody else mounted on top."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    daemon = mount(target, source)
    subprocess.run(["mount", "-t", "tmpfs", "theirs", str(target)], check=True)
    try:
        os.kill(daemon, signal.SIGTERM)
        assert ends(daemon)
        assert type_and_name(target) == ("tmpfs", "theirs")
    finally:
        detach(target)


def test_the_log_says_what_covers_a_mount_that_is_to_end(tmp_path: Path) -> None:
    """Ours stays below, dead, since nobody can reach it there; and can be cleared afterwards."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    log = tmp_path / "log"
    daemon = mount(target, source, "--log-file", str(log))
    subprocess.run(["mount", "-t", "tmpfs", "theirs", str(target)], check=True)
    try:
        os.kill(daemon, signal.SIGTERM)
        assert ends(daemon)
    finally:
        subprocess.run(["umount", str(target)], check=True)
    lines = [line for line in log.read_text().splitlines() if "covered" in line]
    assert len(lines) == 1 and f"{target} is covered by another mount (tmpfs)" in lines[0]
    assert outcome(os.listdir, target) == "ENOTCONN"
    assert attempt("umount", str(target)).returncode == 0
    assert not is_mounted(target)


def test_records_that_were_never_finished(tmp_path: Path, runtime_directory: Path) -> None:
    """Of a daemon killed while it wrote one; another may write its own at this moment."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    runtime_directory.mkdir(mode=0o700)
    left, under_way = runtime_directory / "left.new", runtime_directory / "1.new"
    left.touch()
    with open(under_way, "w") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        mount(target, source)
        assert not left.exists() and under_way.exists()
    under_way.unlink()
    assert attempt("umount", str(target)).returncode == 0


def test_the_same_target_again_and_again(tmp_path: Path) -> None:
    """Device numbers are used again at once; a record of the one before must not be in the way."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    for _ in range(3):
        daemon = mount(target, source)
        subprocess.run(["umount", str(target)], check=True)
        following = mount(target, source)
        assert ends(daemon)
        assert daemon_of(target) == following
        assert attempt("umount", str(target)).returncode == 0


# -- options of mount(8) --------------------------------------------------------------------------


def test_mount_options(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    mount(target, source)
    assert _flags(target) >= {"rw", "nosuid", "nodev"}
    assert type_and_name(target) == ("fuse.overlayd", str(source))
    assert attempt("umount", str(target)).returncode == 0
    words = "ro,noatime,noexec,suid,dev,fsname=mine,nofail,_netdev,x-systemd.automount,defaults"
    mount(target, source, "-o", words)
    assert _flags(target) >= {"ro", "noatime", "noexec"}
    assert not _flags(target) & {"nosuid", "nodev"}
    assert type_and_name(target) == ("fuse.overlayd", "mine")
    assert outcome(lambda: (target / "file").write_text("")) == "EROFS"
    assert attempt("umount", str(target)).returncode == 0


def _flags(target: Path) -> set[str]:
    (line,) = [
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if line.split()[4] == str(target)
    ]
    return set(line.split()[5].split(",")) | set(line.split()[-1].split(","))


def test_the_target_may_come_from_the_configuration_file(tmp_path: Path) -> None:
    _, target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    config = tmp_path / "overlayd.toml"
    config.write_text(f'target = "{target}"\n[[dir]]\nhost = "source"\nguest = "/"\n')
    done = attempt("mount", "--config", str(config), cwd="/")
    assert done.returncode == 0, done.stderr
    assert (target / "file").read_text() == "source"
    assert attempt("umount", str(target)).returncode == 0


def test_it_mounts_quickly_enough_for_a_service(tmp_path: Path) -> None:
    """Not a benchmark: a start that waits for a timeout somewhere takes whole seconds."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    began = time.monotonic()
    mount(target, source)
    assert attempt("umount", str(target)).returncode == 0
    assert time.monotonic() - began < 5


def test_a_source_that_is_the_target_comes_back_after_a_kill(tmp_path: Path) -> None:
    """The dead mount has to go before the source below it can be opened."""
    (source,) = make_dirs(tmp_path, "source")
    kill(mount(source, source, "-o", "nonempty"))
    mount(source, source, "-o", "nonempty")
    assert (source / "file").read_text() == "source"
    assert attempt("umount", str(source)).returncode == 0

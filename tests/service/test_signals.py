"""Ends of a daemon: signals and unmounts, idle or in use; always exit 0 and no mount left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.live import foreground, make_dirs, make_target, mount
from support.mounting import is_mounted
from support.processes import command, daemons_of, ends, in_child, outcome, wait_until

SIGNALS = [signal.SIGTERM, signal.SIGINT]
every_signal = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)


@every_signal
def test_a_signal_unmounts_and_exits_0(tmp_path: Path, number: signal.Signals) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    with foreground(target, f"{source}::/") as process:
        process.send_signal(number)
        assert process.wait(10) == 0
        assert not is_mounted(target)


@every_signal
def test_a_signal_ends_a_daemon(tmp_path: Path, number: signal.Signals) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    daemon = mount(target, source)
    os.kill(daemon, number)
    assert wait_until(lambda: not is_mounted(target))
    assert _exit_status(daemon) == 0


def _exit_status(daemon: int) -> int:
    """How a daemon ended that, its own parents gone, became our child."""
    for _ in range(1000):
        pid, status = os.waitpid(daemon, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    raise AssertionError(f"daemon {daemon} does not end")


@contextmanager
def guest(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that uses a mount: it says a line once it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


HOLD_FILES = """
import os, sys
held = [os.open(sys.argv[1] + "/file", os.O_RDWR), os.open(sys.argv[1], os.O_RDONLY)]
print("ready", flush=True)
sys.stdin.read()
"""
WORKING_DIRECTORY = """
import os, sys
os.chdir(sys.argv[1] + "/sub")
print("ready", flush=True)
sys.stdin.read()
"""
BUSY = """
import os, sys
print("ready", flush=True)
while True:
    os.listdir(sys.argv[1])
    with open(sys.argv[1] + "/file", "r+") as file:
        file.write(file.read())
"""


@pytest.mark.usefixtures("data_way")
@pytest.mark.parametrize(
    "code", [HOLD_FILES, WORKING_DIRECTORY, BUSY], ids=["files", "cwd", "busy"]
)
def test_a_signal_while_a_guest_uses_the_mount(tmp_path: Path, code: str) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    (source / "sub").mkdir()
    with foreground(target, f"{source}::/", options=["--cache", "none"]) as process:
        assert in_child(lambda: (target / "file").exists())
        with guest(code, str(target)):
            began = time.monotonic()
            process.terminate()
            assert process.wait(10) == 0
            assert time.monotonic() - began < 6
            assert not is_mounted(target)


@pytest.mark.usefixtures("data_way")
def test_what_a_guest_wrote_before_the_signal_is_on_the_host(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    with foreground(target, f"{source}::/") as process:
        file = os.open(target / "file", os.O_WRONLY)
        assert os.write(file, b"x" * 1_000_000) == 1_000_000
        process.terminate()
        assert process.wait(10) == 0
        assert outcome(lambda: os.close(file)) in ("ok", "ENOTCONN")
    assert (source / "file").read_text() == "x" * 1_000_000


def test_many_signals_at_once(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    with foreground(target, f"{source}::/") as process:
        assert in_child(lambda: (target / "file").exists())
        for _ in range(5):
            for number in SIGNALS:
                process.send_signal(number)
        assert process.wait(10) == 0
        assert not is_mounted(target)


@every_signal
def test_signals_until_it_has_ended(tmp_path: Path, number: signal.Signals) -> None:
    """However late one more comes, the end is a clean one."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    with foreground(target, f"{source}::/") as process:
        assert in_child(lambda: (target / "file").exists())
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(number)
            time.sleep(0.0005)
        assert process.returncode == 0
        assert not is_mounted(target)


def test_a_signal_while_it_is_still_mounting(tmp_path: Path) -> None:
    """At whatever moment it comes, no mount is left, live or dead."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    words = command("mount", "-f", "--dir", f"{source}::/", str(target))
    for milliseconds in range(60, 360, 30):
        process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
        time.sleep(milliseconds / 1000)
        process.terminate()
        process.wait(10)
        assert not is_mounted(target), f"after {milliseconds} ms"


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [(signal.SIGTERM, -signal.SIGTERM, ""), (signal.SIGINT, 1, "overlayd: error: interrupted\n")],
    ids=["SIGTERM", "SIGINT"],
)
@pytest.mark.parametrize("send", [os.kill, os.killpg], ids=["process", "group"])
def test_a_signal_while_the_configuration_is_read(
    tmp_path: Path, number: int, status: int, words: str, send: Callable[[int, int], None]
) -> None:
    """Which takes as long as it takes, here for ever, in a child that must not stay behind."""
    pipe, target = tmp_path / "guest.toml", make_target(tmp_path)
    os.mkfifo(pipe)
    line = command("mount", "-f", "--config", str(pipe), str(target))
    with subprocess.Popen(
        line, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        assert wait_until(lambda: children.read_text() != "")
        child = int(children.read_text())
        time.sleep(0.3)  # until it waits there, and the process for it
        send(process.pid, number)
        assert process.communicate(timeout=10)[1] == words
        assert process.returncode == status
    assert ends(child)


CALLER_DIES = """
import os, sys
from overlayd.cli.main import main
from overlayd.service import background
background._read_all = lambda heard: os._exit(9)
sys.argv[0] = "overlayd"
main()
"""


def test_a_caller_that_dies_before_it_is_told(tmp_path: Path, runtime_directory: Path) -> None:
    """Nobody knows of the mount then: it goes again, and is not left dead either."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    log = tmp_path / "log"
    os.mkfifo(log)  # the daemon goes on when this is opened to be read, and not before
    words = ["mount", "--dir", f"{source}::/", "--log-file", str(log), str(target)]
    done = subprocess.run([sys.executable, "-c", CALLER_DIES, *words], timeout=10, check=False)
    assert done.returncode == 9
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert wait_until(lambda: not daemons_of(runtime_directory))
        said = os.read(reader, 1 << 16).decode()
    finally:
        os.close(reader)
    assert not is_mounted(target)
    assert str(target) in said and "Traceback" not in said


@pytest.mark.parametrize("flags", [(), ("-l",)], ids=["plain", "lazy"])
def test_an_unmount_from_outside_ends_the_daemon(tmp_path: Path, flags: tuple[str, ...]) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    with foreground(target, f"{source}::/") as process:
        assert in_child(lambda: (target / "file").exists())
        subprocess.run(["umount", *flags, str(target)], check=True, timeout=10)
        assert process.wait(10) == 0


@pytest.mark.usefixtures("data_way")
def test_a_daemon_goes_on_until_the_last_file_is_closed(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    daemon = mount(target, source)
    with (target / "file").open() as held:
        subprocess.run(["umount", "-l", str(target)], check=True, timeout=10)
        assert held.read() == "source"
    assert ends(daemon)


def test_a_signal_counts_also_where_the_caller_ignores_it(tmp_path: Path) -> None:
    """A script's background jobs ignore SIGINT; under nohup(1) SIGHUP is, and that is meant."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    words = command("mount", "-f", "--dir", f"{source}::/", str(target))
    ignoring = ["sh", "-c", "trap '' INT HUP; exec \"$@\"", "sh", *words]
    process = subprocess.Popen(ignoring, stderr=subprocess.DEVNULL)
    assert wait_until(lambda: is_mounted(target))
    process.send_signal(signal.SIGHUP)
    assert in_child(lambda: (target / "file").read_text()) == "source"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0
    assert not is_mounted(target)

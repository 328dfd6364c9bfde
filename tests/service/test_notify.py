"""What a service manager hears from `mount -f`: datagrams on a socket that plays its part."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from overlayd.service.health import ask, unhealthy
from overlayd.service.notify import ServiceManager, feed_watchdog
from support.live import foreground, make_dirs, make_target
from support.moody_source import moody_source
from support.mounting import overlayd
from support.processes import LIMIT, wait_until

ABSTRACT = f"@overlayd-test-{os.getpid()}"


class Ear:
    """The manager's end."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1) if address[0] == "@" else address)

    def hear(self, seconds: float = LIMIT) -> list[str]:
        """The lines of the next message; none where none comes within SECONDS."""
        self._socket.settimeout(seconds)
        try:
            return self._socket.recv(4096).decode().split("\n")
        except TimeoutError:
            return []

    def close(self) -> None:
        self._socket.close()


@contextmanager
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A daemon in the foreground and its target."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    with serving(target, source) as daemon:
        yield daemon, target


@contextmanager
def serving(target: Path, source: Path) -> Iterator[subprocess.Popen[str]]:
    """A daemon in the foreground; ends it well where the test has not."""
    with foreground(target, f"{source}::/") as daemon:
        yield daemon
        if daemon.poll() is None:
            daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(LIMIT) == 0


@pytest.fixture
def ear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ear]:
    """A manager that daemons started in the test are told of."""
    ear = Ear(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", ear.address)
    yield ear
    ear.close()


def test_a_manager_hears_of_the_beginning_and_the_end(tmp_path: Path, ear: Ear) -> None:
    with served(tmp_path) as (daemon, target):
        assert ear.hear() == ["READY=1", f"STATUS=Serving {target}"]
        daemon.send_signal(signal.SIGTERM)
        assert ear.hear() == [
            "STOPPING=1",
            "EXTEND_TIMEOUT_USEC=6000000",
            "STATUS=Unmounting",
        ]
        assert daemon.wait(LIMIT) == 0
    assert ear.hear(0.01) == []


def test_an_abstract_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ear = Ear(ABSTRACT)
    monkeypatch.setenv("NOTIFY_SOCKET", ABSTRACT)
    with served(tmp_path):
        assert ear.hear()[0] == "READY=1"
    ear.close()


@pytest.mark.parametrize("address", ["/nowhere/notify", "vsock:2:1", "relative"])
def test_a_manager_that_cannot_be_reached_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with served(tmp_path) as (_, target):
        assert wait_until(lambda: ask(str(target)) == errno.ENAMETOOLONG)


def test_signs_of_life_come_often_enough(
    tmp_path: Path, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "300000")
    with served(tmp_path):
        assert ear.hear()[0] == "READY=1"
        began = time.monotonic()
        for _ in range(4):
            assert ear.hear() == ["WATCHDOG=1"]
        assert time.monotonic() - began > 0.25, "a third of the interval lies between them"


@pytest.mark.parametrize(
    ("interval", "process"), [("", ""), ("0", ""), ("words", ""), ("300000", "1")]
)
def test_no_watchdog_no_timer(interval: str, process: str) -> None:
    environment = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": interval, "WATCHDOG_PID": process}
    assert ServiceManager.from_environment(environment).watchdog_seconds is None
    assert environment == {}, "no child must speak for us"


def test_a_reload_is_two_messages(ear: Ear) -> None:
    manager = ServiceManager.from_environment({"NOTIFY_SOCKET": ear.address})
    before = time.monotonic_ns() // 1000
    manager.reloading()
    manager.ready("two\nlines")
    first, moment = ear.hear()
    assert first == "RELOADING=1"
    assert before <= int(moment.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000
    assert ear.hear() == ["READY=1", "STATUS=two\\nlines"]


def test_a_daemon_that_hangs_is_not_fed_and_piles_up_no_threads(tmp_path: Path, ear: Ear) -> None:
    manager = ServiceManager(ear.address, watchdog_seconds=0.03)
    with served(tmp_path) as (daemon, target):
        assert ear.hear()[0] == "READY=1"

        async def watch() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed_watchdog, manager, str(target))
                assert await trio.to_thread.run_sync(ear.hear) == ["WATCHDOG=1"]
                daemon.send_signal(signal.SIGSTOP)
                while await trio.to_thread.run_sync(ear.hear, 0.3):
                    pass  # what was said before it stopped
                threads = threading.active_count()
                assert await trio.to_thread.run_sync(ear.hear, 0.3) == []
                assert threading.active_count() <= threads
                daemon.send_signal(signal.SIGCONT)
                assert await trio.to_thread.run_sync(ear.hear) == ["WATCHDOG=1"]
                nursery.cancel_scope.cancel()

        try:
            trio.run(watch)
        finally:
            daemon.send_signal(signal.SIGCONT)


def test_a_source_that_hangs_is_no_reason_to_end_the_daemon(tmp_path: Path, ear: Ear) -> None:
    target = make_target(tmp_path)
    manager = ServiceManager(ear.address, watchdog_seconds=0.03)
    with moody_source(tmp_path / "moody") as source, serving(target, source.path):
        assert ear.hear()[0] == "READY=1"
        source.order({"*": 3600})
        stuck = subprocess.Popen(["touch", str(target / "new")])
        try:
            assert wait_until(lambda: unhealthy(str(target), 0.1) is not None)
            assert trio.run(_hears, ear, manager, target)
            assert stuck.poll() is None
        finally:
            source.order()
            stuck.wait(LIMIT)


def children() -> set[int]:
    """This process's own."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(number) for task in tasks for number in task.read_text().split()}


NEVER_ANSWERS = """
import time
from overlayd.cli.main import main
from overlayd.kernel.operations import Operations

def hang(*_):
    time.sleep(3600)

hang.plain = hang, None
Operations.getxattr = hang
main()
"""


def test_a_daemon_that_hangs_in_the_probe_itself_can_be_killed(tmp_path: Path, ear: Ear) -> None:
    """The request is read and will never be answered: who waits for it cannot be killed."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    words = ["mount", "--foreground", "--dir", f"{source}::/", str(target)]
    environment = {**os.environ, "WATCHDOG_USEC": "300000"}
    daemon = subprocess.Popen([sys.executable, "-c", NEVER_ANSWERS, *words], env=environment)
    assert ear.hear()[0] == "READY=1"
    time.sleep(0.5)  # the first request is under way
    assert ear.hear(0.1) == []
    daemon.kill()
    try:
        assert daemon.wait(LIMIT) == -signal.SIGKILL
    finally:
        overlayd("umount", str(target))


def test_a_prober_that_was_killed_is_followed_by_another(tmp_path: Path, ear: Ear) -> None:
    manager = ServiceManager(ear.address, watchdog_seconds=0.03)
    with served(tmp_path) as (_, target):
        assert ear.hear()[0] == "READY=1"

        async def watch() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(feed_watchdog, manager, str(target))
                assert await trio.to_thread.run_sync(ear.hear) == ["WATCHDOG=1"]
                (prober,) = children() - before
                os.kill(prober, signal.SIGKILL)
                while await trio.to_thread.run_sync(ear.hear, 0.001):
                    pass  # what was said before
                assert await trio.to_thread.run_sync(ear.hear) == ["WATCHDOG=1"]
                nursery.cancel_scope.cancel()

        before = children()
        trio.run(watch)
        assert children() == before, "it ends with who asked"


async def _hears(ear: Ear, manager: ServiceManager, target: Path) -> bool:
    """Whether a sign of life comes."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed_watchdog, manager, str(target))
        heard = await trio.to_thread.run_sync(ear.hear)
        nursery.cancel_scope.cancel()
    return heard == ["WATCHDOG=1"]

"""The control socket: who may ask, what is answered, and that no client can harm the daemon."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from overlayd.errors import OverlaydError, UsageError
from overlayd.service import control as control_module
from overlayd.service.client import Unanswered, ask
from overlayd.service.registry import socket_of
from support.conversing import answer_to, connect, controlled, hear, say
from support.live import daemon_of, is_live, kill, make_dirs, make_target, mount
from support.mounting import mounted
from support.processes import NOBODY, attempt, complaint, in_child, outcome, wait_until

DEVICE = 4711


async def echo(request: Mapping[str, Any]) -> object:
    return dict(request)


async def complain(request: Mapping[str, Any]) -> object:
    raise UsageError("that is wrong; write it otherwise")


async def break_down(request: Mapping[str, Any]) -> object:
    raise ZeroDivisionError


async def talk_nonsense(request: Mapping[str, Any]) -> object:
    return {1, 2}


async def hang(request: Mapping[str, Any]) -> object:
    await trio.sleep_forever()


@pytest.fixture
def record(runtime_directory: Path) -> Iterator[Path]:
    """A record as a live daemon has it: locked."""
    runtime_directory.mkdir(mode=0o700)
    path = runtime_directory / f"{DEVICE}.json"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    yield path
    os.close(fd)
    path.unlink()
    socket_of(path).unlink(missing_ok=True)


@pytest.fixture
def place(record: Path) -> Iterator[Path]:
    """A served control socket."""
    with controlled(
        record,
        echo=echo,
        complain=complain,
        break_down=break_down,
        talk_nonsense=talk_nonsense,
        hang=hang,
    ):
        path = socket_of(record)
        assert wait_until(path.exists)
        yield path


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "_TRANSFER_SECONDS", 0.3)


# -- the protocol ---------------------------------------------------------------------------------


def test_a_verb_gets_the_request_and_its_answer_comes_back(place: Path) -> None:
    odd = os.fsdecode(b"/odd\xff\n")
    assert ask(DEVICE, "echo", paths=[odd]) == {"version": 1, "verb": "echo", "paths": [odd]}
    assert answer_to(place, verb="echo") == {
        "version": 1,
        "ok": True,
        "answer": {"version": 1, "verb": "echo"},
    }


def test_what_a_verb_complains_of_comes_back_as_such(place: Path) -> None:
    with pytest.raises(OverlaydError, match="the mount: that is wrong; write it otherwise") as told:
        ask(DEVICE, "complain")
    assert told.value.exit_code == 2
    assert not isinstance(told.value, Unanswered)


@pytest.mark.parametrize("verb", ["break_down", "talk_nonsense"])
def test_a_verb_that_fails_is_answered_and_harms_nobody(verb: str, place: Path) -> None:
    with pytest.raises(OverlaydError, match=r"unexpected .*Error; see the daemon's log"):
        ask(DEVICE, verb)
    assert ask(DEVICE, "echo")


@pytest.mark.parametrize(
    ("request_line", "words"),
    [
        (b"\n", "one JSON object"),
        (b"nonsense\n", "one JSON object"),
        (b"[]\n", "one JSON object"),
        (b"\xff\xfe\n", "one JSON object"),
        (b"[" * 100_000 + b"\n", "one JSON object"),
        (b'{"version": ' + b"9" * 10_000 + b"}\n", "one JSON object"),
        (b"{}\n", "version 1"),
        (b'{"version": 2, "verb": "echo"}\n', "version 1"),
        (b'{"version": "1", "verb": "echo"}\n', "version 1"),
        (b'{"version": 1}\n', "unknown verb"),
        (b'{"version": 1, "verb": ["echo"]}\n', "unknown verb"),
        (b'{"version": 1, "verb": "no such\\n"}\n', "knows break_down, complain, echo"),
        (b"x" * 300_000 + b"\n", "at most 262144 bytes"),
        (b'{"version": 1, "verb": "echo"', "at most 262144 bytes"),
    ],
)
def test_what_is_no_request_is_told_so(request_line: bytes, words: str, place: Path) -> None:
    with connect(place) as client:
        try:
            client.sendall(request_line)
            client.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # answered before everything was sent
        line = hear(client)
    answer = json.loads(line)
    assert line.count(b"\n") == 1
    assert (answer["version"], answer["ok"], answer["exit_code"]) == (1, False, 1)
    assert words in answer["error"]
    assert ask(DEVICE, "echo")


def test_a_request_in_pieces(place: Path) -> None:
    with connect(place) as client:
        for byte in b'{"version": 1, "verb": "echo"}\n':
            client.send(bytes([byte]))
            time.sleep(0.001)
        assert json.loads(hear(client))["ok"] is True


def test_a_large_answer_comes_whole(place: Path) -> None:
    with pytest.raises(OverlaydError, match="at most"):
        ask(DEVICE, "echo", filler="x" * 300_000)
    text = "x" * 250_000
    assert ask(DEVICE, "echo", filler=text)["filler"] == text


# -- hostile clients ------------------------------------------------------------------------------


def test_who_says_nothing_is_cut_off(hasty: None, place: Path) -> None:
    with connect(place) as client:
        assert "no request came" in json.loads(hear(client))["error"]


def test_who_takes_no_answer_is_cut_off(hasty: None, place: Path) -> None:
    with connect(place) as client:
        client.sendall(b'{"version": 1, "verb": "echo", "x": "%s"}\n' % (b"\\u0100" * 40_000))
        time.sleep(0.6)
        assert not hear(client).endswith(b"\n")
    assert ask(DEVICE, "echo")


def test_who_leaves_at_once_leaves_nothing(place: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        connect(place).close()
        with connect(place) as client:
            client.sendall(b'{"version": 1, "verb": "echo"}\n')
    assert ask(DEVICE, "echo")
    assert wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_many_silent_clients_only_delay_the_others(hasty: None, place: Path) -> None:
    crowd = [connect(place) for _ in range(60)]
    try:
        began = time.monotonic()
        assert ask(DEVICE, "echo", timeout=8.0)
        assert time.monotonic() - began < 5
    finally:
        for client in crowd:
            client.close()


def test_many_at_once_are_all_answered(place: Path) -> None:
    answers: list[object] = []
    crowd = [
        threading.Thread(target=lambda n=n: answers.append(ask(DEVICE, "echo", n=n)["n"]))
        for n in range(100)
    ]
    for asking in crowd:
        asking.start()
    for asking in crowd:
        asking.join()
    assert sorted(answers, key=str) == sorted(range(100), key=str)


# -- the client -----------------------------------------------------------------------------------


def test_no_daemon_and_no_runtime_directory() -> None:
    with pytest.raises(Unanswered, match="no daemon of this user answers"):
        ask(DEVICE, "echo")


def test_a_socket_left_by_the_dead(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with controlled(record):
        assert wait_until(socket_of(record).exists)
    assert socket_of(record).exists()
    with pytest.raises(Unanswered, match=r"did not answer within 0.2 s"):  # it may just begin
        ask(DEVICE, "echo", timeout=0.2)
    record.rename(record.with_suffix(".locked"))
    record.touch()  # nobody holds a lock on this one
    with pytest.raises(Unanswered, match="no daemon of this user answers"):
        ask(DEVICE, "echo", timeout=5)
    record.with_suffix(".locked").rename(record)


def test_a_daemon_that_is_just_starting_is_waited_for(record: Path) -> None:
    def later() -> None:
        time.sleep(0.2)
        with controlled(record, echo=echo):
            answered.wait(10)

    answered = threading.Event()
    starting = threading.Thread(target=later)
    starting.start()
    assert ask(DEVICE, "echo")
    answered.set()
    starting.join()


def test_no_answer_in_time(place: Path) -> None:
    with pytest.raises(Unanswered, match=r"did not answer within 0.3 s"):
        ask(DEVICE, "hang", timeout=0.3)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"", "without an answer"),
        (b"nonsense\n", "answered no JSON"),
        (b'{"version": 1', "answered no JSON"),
        (b'{"version": 7, "ok": true}\n', "speaks version 7 .* this overlayd 1"),
        (b'{"version": 1, "ok": false, "error": "a\\nb", "exit_code": 99}\n', r"a\\nb"),
    ],
)
def test_a_daemon_of_another_kind(line: bytes, words: str, record: Path) -> None:
    listener = control_module.open_socket(record)
    listener.setblocking(True)

    def answer() -> None:
        client, _ = listener.accept()
        with client:
            client.recv(1 << 16)
            client.sendall(line)

    answering = threading.Thread(target=answer)
    answering.start()
    with pytest.raises(OverlaydError, match=words) as told:
        ask(DEVICE, "echo")
    assert told.value.exit_code == 1
    answering.join()
    listener.close()


# -- on a real mount ------------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_dirs(tmp_path, "source")[0]


def socket_path(runtime_directory: Path, target: Path) -> Path:
    return runtime_directory / f"{os.stat(target).st_dev}.sock"


def test_the_socket_is_its_owners_and_goes_with_the_mount(
    tmp_path: Path, source: Path, runtime_directory: Path
) -> None:
    with mounted(tmp_path, f"{source}::/") as target:
        path = socket_path(runtime_directory, target)
        status = path.stat()
        assert stat.S_ISSOCK(status.st_mode)
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, os.geteuid())
        assert answer_to(path, verb="no such")["ok"] is False
    assert list(runtime_directory.iterdir()) == []


def test_nobody_else_may_ask(tmp_path: Path, source: Path, runtime_directory: Path) -> None:
    with mounted(tmp_path, f"{source}::/") as target:
        path = socket_path(runtime_directory, target)
        for entry in (runtime_directory.parent, runtime_directory):
            entry.chmod(0o755)
        assert in_child(outcome, connect, path, user=NOBODY) == "EACCES"
        path.chmod(0o666)  # even then: the daemon asks who it is
        assert in_child(say, path, b'{"version": 1, "verb": "x"}\n', user=NOBODY) == b""
        assert answer_to(path, verb="x")["ok"] is False
        assert is_live(target)


def test_what_a_killed_daemon_left_is_swept(
    tmp_path: Path, source: Path, runtime_directory: Path
) -> None:
    target, other = make_target(tmp_path), make_target(tmp_path, "other")
    pid = mount(target, source)
    path = socket_path(runtime_directory, target)
    kill(pid)
    assert path.exists()
    with pytest.raises(Unanswered, match="no daemon"):
        ask(int(path.stem), "status")
    (runtime_directory / "99.sock").touch()
    mount(other, source)
    assert not path.exists()
    assert sorted(entry.suffix for entry in runtime_directory.iterdir()) == [".json", ".sock"]
    for place in (target, other):
        assert attempt("umount", str(place)).returncode == 0


def test_a_runtime_directory_with_a_long_path(
    tmp_path: Path, source: Path, runtime_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = runtime_directory / ("d" * 200) / ("e" * 200)
    monkeypatch.setenv("OVERLAYD_RUNTIME_DIR", str(long))
    target = make_target(tmp_path)
    mount(target, source)
    try:
        with pytest.raises(OverlaydError, match="unknown verb"):
            ask(os.stat(target).st_dev, "no such")
    finally:
        assert attempt("umount", str(target)).returncode == 0
    long.rmdir()
    long.parent.rmdir()


def test_the_runtime_directory_is_never_inside_the_mount(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = make_target(tmp_path)
    (tmp_path / "link").symlink_to(target)
    for place in (target, target / "run", tmp_path / "link/run"):
        monkeypatch.setenv("OVERLAYD_RUNTIME_DIR", str(place))
        done = attempt("mount", "--dir", f"{source}::/", str(target))
        assert "inside the target" in complaint(done, 1)
        assert list(target.iterdir()) == []


def test_a_crowd_does_not_keep_guests_waiting(
    tmp_path: Path, source: Path, runtime_directory: Path
) -> None:
    with mounted(tmp_path, f"{source}::/") as target:
        path = socket_path(runtime_directory, target)
        crowd = [connect(path) for _ in range(60)]
        for client in crowd[::2]:
            client.sendall(b"[" * 65536)
        assert in_child((target / "file").read_text) == "source"
        assert daemon_of(target)
        for client in crowd:
            client.close()

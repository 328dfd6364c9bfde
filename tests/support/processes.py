"""Processes of tests: functions that run elsewhere under a time limit, and daemons to wait for.

What touches a mount that might hang runs in a forked child: a hang is then a failed test and not
a test run that never ends. `in_child` also is how a test becomes another user.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any, TypeVar, cast

import pytest

T = TypeVar("T")

LIMIT = 30.0
"""Seconds; whatever a test asks of a mount takes milliseconds."""

DATA_WAY = "OVERLAYD_TEST_PASSTHROUGH"
"""What `--passthrough` is given in mounts whose test does not say; see the fixture `data_way`."""

_PR_SET_CHILD_SUBREAPER = 36
_RUNTIME_DIRECTORY = "OVERLAYD_RUNTIME_DIR"


@dataclass(frozen=True)
class User:
    """Who a child is to be."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    umask: int = 0o022


NOBODY = User(65534, 65534)


class HangError(AssertionError):
    """Something did not come back within its time."""


def in_child(
    function: Callable[..., T],
    *arguments: object,
    seconds: float = LIMIT,
    user: User | None = None,
) -> T:
    """What FUNCTION returns or raises in a forked child, as USER, within SECONDS."""
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        _answer(lambda: function(*arguments), user, told)
    os.close(told)
    try:
        succeeded, answer = pickle.loads(_listen(heard, child, seconds))
    finally:
        os.close(heard)
    if not succeeded:
        raise answer
    return cast(T, answer)


def _answer(function: Callable[[], object], user: User | None, told: int) -> None:
    """Call FUNCTION as USER, write down how it ended, and never return."""
    try:
        if user is not None:
            os.umask(user.umask)
            os.setgroups(user.groups)
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)
        try:
            answer: tuple[bool, object] = (True, function())
        except OSError as error:
            answer = (False, OSError(error.errno, error.strerror, error.filename))
        except BaseException:
            answer = (False, AssertionError(traceback.format_exc()))
        view = memoryview(pickle.dumps(answer))
        while view:
            view = view[os.write(told, view) :]
    finally:
        os._exit(0)


def _listen(heard: int, child: int, seconds: float) -> bytes:
    deadline = time.monotonic() + seconds
    pieces: list[bytes] = []
    while True:
        ready, _, _ = select.select([heard], [], [], max(deadline - time.monotonic(), 0))
        if not ready:
            os.kill(child, signal.SIGKILL)
            # It may not die before the mount it hangs on is gone: nobody waits for it here.
            raise HangError(f"no answer within {seconds} s")
        piece = os.read(heard, 65536)
        if not piece:
            os.waitpid(child, 0)
            return b"".join(pieces)
        pieces.append(piece)


def tried(call: Callable[..., object], *arguments: object, user: User | None = None) -> str:
    """Like `outcome`, in a child, as USER."""
    return in_child(outcome, call, *arguments, user=user)


def outcome(call: Callable[..., object], *arguments: object) -> str:
    """`ok`, or the name of the errno that CALL fails with."""
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def wait_until(condition: Callable[[], bool], seconds: float = LIMIT) -> bool:
    """Whether CONDITION came true within SECONDS."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


# -- overlayd as a process ------------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    """The command line of overlayd with ARGUMENTS."""
    return [sys.executable, "-m", "overlayd", *with_data_way(arguments)]


def with_data_way(arguments: Sequence[str]) -> Sequence[str]:
    """ARGUMENTS of overlayd; where they mount, with the way that data is to go in this test."""
    way = os.environ.get(DATA_WAY)
    if way is None or arguments[:1] not in (("mount",), ("run",)) or "--passthrough" in arguments:
        return arguments
    return (arguments[0], "--passthrough", way, *arguments[1:])


def command_as(user: User, *arguments: str) -> list[str]:
    """The same, as USER, wherever the interpreter lies."""
    wrapper = Path(__file__).with_name("as_user.py")
    return [sys.executable, str(wrapper), str(user.uid), str(user.gid), *with_data_way(arguments)]


def attempt(
    *arguments: str, seconds: float = 30, user: User | None = None, **options: Any
) -> CompletedProcess[str]:
    """Run overlayd to its end, whatever that is; OPTIONS are those of subprocess.Popen."""
    try:
        return subprocess.run(
            command(*arguments) if user is None else command_as(user, *arguments),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            **options,
        )
    except subprocess.TimeoutExpired:
        raise HangError(f"overlayd {arguments[0]}: not back within {seconds} s") from None


def complaint(done: CompletedProcess[str], status: int) -> str:
    """The one line that a failed command says; checks that it is one, and the exit status."""
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (status, 1), (done.returncode, done.stderr)
    assert lines[0].startswith("overlayd: error: "), lines
    assert "Traceback" not in done.stderr
    return lines[0].removeprefix("overlayd: error: ")


def become_subreaper() -> None:
    """Inherit daemons: PID 1 may be slow to reap them, and a zombie looks alive."""
    assert ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


def has_ended(pid: int) -> bool:
    """Whether the process is gone; reaps it where it is our child."""
    with suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return True
    return _state(pid) in ("", "Z", "X")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """The process does nothing during the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def ends(pid: int, seconds: float = LIMIT) -> bool:
    """Whether the process ends within SECONDS."""
    return wait_until(lambda: has_ended(pid), seconds)


def _state(pid: int) -> str:
    try:
        return _stat(pid)[0]
    except OSError:
        return ""


def ticks_of(pid: int) -> int:
    """Ticks of processor time that the process has used."""
    return sum(map(int, _stat(pid)[11:13]))


def _stat(pid: int) -> list[str]:
    """The fields of proc(5), from the state on: the third and those behind it."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def daemons_of(runtime_directory: Path) -> list[int]:
    """Processes other than this one that were started with that runtime directory."""
    wanted = f"{_RUNTIME_DIRECTORY}={runtime_directory}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        with suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def reap(pids: Iterable[int]) -> None:
    """Kill processes and see them off."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if not ends(pid):
            pytest.fail(f"process {pid} does not even die of SIGKILL")

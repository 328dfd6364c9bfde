"""Denied changes are visible: a line each in the log, rationed by kind, and counters."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

import pytest

from aliases.kinds import link, plant
from overlayd.core.denials import Denials
from overlayd.host.credentials import Caller
from support.mounting import mounted
from support.processes import NOBODY, in_child, outcome

FLAGS = os.O_RDWR | os.O_CREAT
CALLER = Caller(uid=1000, gid=100, pid=4321)


def note(noted: Denials, kind: str = "kind", operation: str = "unlink") -> None:
    noted.note(operation, "/ro/f", "--dir /x::/ro::ro", kind, "for a reason", CALLER)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as its only element."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_line_says_everything(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    note(Denials())
    (line,) = caplog.records
    assert line.levelno == logging.WARNING
    assert line.getMessage() == (
        "denied unlink of /ro/f (--dir /x::/ro::ro): for a reason; pid 4321, uid 1000"
    )
    assert vars(line)["fields"] == {
        "operation": "unlink",
        "guest": "/ro/f",
        "source": "--dir /x::/ro::ro",
        "kind": "kind",
        "reason": "for a reason",
        "pid": 4321,
        "uid": 1000,
        "gid": 100,
    }


def test_lines_are_rationed_by_kind(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    noted = Denials()
    for _ in range(20):
        note(noted)
    assert len(caplog.records) == 5
    note(noted, "another kind")
    assert len(caplog.records) == 6
    clock[0] += 9.9
    note(noted)
    assert len(caplog.records) == 6


def test_what_was_left_out_is_told_later(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    noted = Denials()
    for _ in range(20):
        note(noted)
    clock[0] += 10
    note(noted)
    assert caplog.records[5].getMessage() == "15 more changes were denied like that (kind)"
    assert len(caplog.records) == 7
    clock[0] += 10
    note(noted)
    assert len(caplog.records) == 8


def test_counters_count_what_is_not_logged_too(clock: list[float]) -> None:
    noted = Denials()
    for _ in range(20):
        note(noted)
    note(noted, "another kind")
    assert noted.by_kind == {"kind": 20, "another kind": 1}
    assert noted.by_preopen == {"--dir /x::/ro::ro": 21}


def provoke(target: Path, *names: str) -> int:
    """A denial for each of NAMES; returns who did it."""
    for name in names:
        denied = outcome(lambda path=target / name: os.close(os.open(path, FLAGS)))
        assert denied == "EROFS", name
    return os.getpid()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_daemons_log(log_format: str, open_path: Path) -> None:
    plant(open_path)
    link("ro/f", "w/alias")(open_path)
    dirs = [f"{open_path}/ro::/ro::ro", f"{open_path}/w::/w"]
    options = ["--allow-other", "--log-format", log_format]
    with mounted(open_path, *dirs, options=options) as target:
        other = in_child(lambda: provoke(target, "w/alias", "ro/f"), user=NOBODY)
        root = in_child(lambda: provoke(target, "new"))
    hard_link = "another hard link of the same file is shown read-only"
    expected = [
        ("open for writing", "/w/alias", f"{dirs[1]}::rw", hard_link, other, NOBODY.uid),
        ("open for writing", "/ro/f", dirs[0], "its preopen is read-only", other, NOBODY.uid),
        ("create", "/", "no preopen", "it is synthetic: no source has it", root, 0),
    ]
    log = Path(f"{target}.log").read_text().splitlines()
    if log_format == "text":
        said = [line.partition("denied ")[2] for line in log if "denied " in line]
        line = "{} of {} ({}): {}; pid {}, uid {}"
        assert said == [line.format(*values) for values in expected]
    else:
        entries = [entry for entry in map(json.loads, log) if "operation" in entry]
        fields = ("operation", "guest", "source", "reason", "pid", "uid")
        assert [tuple(entry[field] for field in fields) for entry in entries] == expected

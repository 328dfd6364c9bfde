"""The daemon's log: its forms, where it goes, and that nobody waits for it to be written."""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from overlayd.service.logs import Handover, JsonFormatter, is_journal, set_up_logging
from support import sabotage
from support.live import make_dirs, make_target
from support.mounting import detach, is_mounted, mounted
from support.processes import attempt, command, complaint, in_child, outcome, wait_until


class Slow(logging.Handler):
    """A writer that waits for permission before each line."""

    def __init__(self) -> None:
        super().__init__()
        self.may_write = threading.Event()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        assert self.may_write.wait(10)
        self.lines.append(self.format(record))


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of the test's own."""
    own = logging.getLogger("test of logs")
    own.propagate = False
    own.setLevel(logging.DEBUG)
    yield own
    for handler in own.handlers[:]:
        own.removeHandler(handler)
        handler.close()


# -- handing over ---------------------------------------------------------------------------------


def test_who_logs_never_waits_and_what_is_lost_is_counted_and_said(logger: logging.Logger) -> None:
    slow = Slow()
    handover = Handover(slow, waiting_lines=10)
    logger.addHandler(handover)
    began = time.monotonic()
    for number in range(1000):
        logger.info("line %d", number)
    assert time.monotonic() - began < 10
    assert 988 <= handover.lost <= 990
    lost = handover.lost
    slow.may_write.set()
    handover.close()
    assert slow.lines[0] == "line 0"
    (said,) = [line for line in slow.lines if "lost" in line]
    assert said.startswith(f"{lost} log lines were lost")
    assert len(slow.lines) == 1000 - lost + 1


def test_the_order_is_kept_and_the_end_is_written(logger: logging.Logger) -> None:
    slow = Slow()
    slow.may_write.set()
    handover = Handover(slow)
    logger.addHandler(handover)
    for number in range(5000):
        logger.info("%d", number)
    handover.close()
    assert slow.lines == [str(number) for number in range(5000)]
    assert handover.lost == 0


def test_a_record_is_settled_when_it_is_logged(logger: logging.Logger) -> None:
    slow = Slow()
    slow.setFormatter(JsonFormatter())
    logger.addHandler(handover := Handover(slow))
    changing = ["before"]
    try:
        raise KeyError("why")
    except KeyError:
        logger.exception("%s", changing, extra={"fields": {"operation": "open"}})
    changing[0] = "after"
    handover.emit(logging.LogRecord("x", logging.INFO, __file__, 1, "%d", ("no number",), None))
    slow.may_write.set()
    handover.close()
    line, *lost = map(json.loads, slow.lines)
    assert (line["message"], line["operation"]) == ("['before']", "open")
    assert "KeyError: 'why'" in line["traceback"]
    assert (handover.lost, len(lost)) == (1, 1)


def test_a_stuck_writer_does_not_keep_the_end_waiting_for_ever(
    logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("overlayd.service.logs._CLOSING_SECONDS", 0.1)
    slow = Slow()
    logger.addHandler(handover := Handover(slow, waiting_lines=1))
    for _ in range(5):
        logger.info("x")
    began = time.monotonic()
    handover.close()
    assert time.monotonic() - began < 2
    slow.may_write.set()


def test_the_thread_takes_no_signals(logger: logging.Logger) -> None:
    before = set(threading.enumerate())
    logger.addHandler(Handover(Slow()))
    (thread,) = set(threading.enumerate()) - before
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    blocked = int(status.partition("SigBlk:")[2].split()[0], 16)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        assert blocked >> (number - 1) & 1


# -- forms ----------------------------------------------------------------------------------------


@contextmanager
def logging_to_stderr(form: str, *, journal: bool = False) -> Iterator[int]:
    """This process's log goes to a pipe in the place of stderr; its read end."""
    heard, told = os.pipe()
    saved, environment = os.dup(2), dict(os.environ)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    os.dup2(told, 2)
    if journal:
        status = os.fstat(2)
        os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
    try:
        set_up_logging("debug", "json" if form == "json" else "text", None, background=False)
        yield heard
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        os.environ.clear()
        os.environ.update(environment)
        os.dup2(saved, 2)
        for fd in (heard, told, saved):
            os.close(fd)


def hear_lines(heard: int, count: int) -> list[str]:
    text = b""
    while text.count(b"\n") < count:
        ready, _, _ = select.select([heard], [], [], 5)
        assert ready, text
        text += os.read(heard, 65536)
    return text.decode().splitlines()


LOG = logging.getLogger("overlayd.test")


def test_text() -> None:
    with logging_to_stderr("text") as heard:
        LOG.warning("denied %s", "a\nb")
        (line,) = hear_lines(heard, 1)
    date, clock, rest = line.split(" ", 2)
    assert (len(date), len(clock)) == (10, 12)
    assert rest == "WARNING overlayd.test: denied a\\nb"


def test_json() -> None:
    with logging_to_stderr("json") as heard:
        LOG.info("x", extra={"fields": {"pid": 7, "odd": {1}}})
        (line,) = map(json.loads, hear_lines(heard, 1))
    assert (line["level"], line["logger"], line["message"]) == ("info", "overlayd.test", "x")
    assert (line["pid"], line["odd"]) == (7, "{1}")


def test_priorities_under_journald() -> None:
    with logging_to_stderr("text", journal=True) as heard:
        for log in (LOG.debug, LOG.info, LOG.warning, LOG.error, LOG.critical):
            log("x")
        try:
            raise KeyError("why")
        except KeyError:
            LOG.exception("y")
        lines = hear_lines(heard, 9)
    assert lines[:5] == [f"<{priority}>overlayd.test: x" for priority in (7, 6, 4, 3, 2)]
    assert lines[5:7] == ["<3>overlayd.test: y", "<3>Traceback (most recent call last):"]
    assert lines[-1] == "<3>KeyError: 'why'"
    assert all(line.startswith("<3>") for line in lines[5:])


def test_json_under_journald() -> None:
    with logging_to_stderr("json", journal=True) as heard:
        LOG.error("x")
        (line,) = hear_lines(heard, 1)
    assert line.startswith("<3>{")
    assert json.loads(line[3:])["message"] == "x"


def test_a_journal_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:1")
    assert not is_journal(2)
    assert not is_journal(9999)
    monkeypatch.delenv("JOURNAL_STREAM")
    assert not is_journal(2)


# -- on a real daemon -----------------------------------------------------------------------------


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_dirs(tmp_path, "source")[0]


def test_a_reader_that_reads_nothing_stops_no_guest(tmp_path: Path, source: Path) -> None:
    """stderr is a full pipe: a daemon that wrote to it from its event loop would hang."""
    target = make_target(tmp_path)
    heard, told = os.pipe()
    os.set_blocking(told, False)
    while outcome(os.write, told, b"x" * 4096) == "ok":
        pass
    os.set_blocking(told, True)  # the daemon's own view of it, too
    process = subprocess.Popen(
        command("mount", "-f", "--dir", f"{source}::/::ro", str(target)),
        stdin=subprocess.DEVNULL,
        stderr=told,
    )
    try:
        assert wait_until(lambda: is_mounted(target))
        assert in_child(outcome, os.mkdir, target / "x") == "EROFS"
        assert in_child((target / "file").read_text) == "source"
        assert attempt("status", str(target)).returncode == 0
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        os.close(told)
        os.close(heard)
    assert not is_mounted(target)


@pytest.mark.parametrize("how", ["closed", "nobody reads"])
def test_without_a_stderr_it_serves_all_the_same(how: str, tmp_path: Path, source: Path) -> None:
    target = make_target(tmp_path)
    words = command("mount", "-f", "--dir", f"{source}::/::ro", str(target))
    if how == "closed":
        words = ["sh", "-c", 'exec "$@" 2>&-', "sh", *words]
    heard, told = os.pipe()
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=told)
    os.close(told)
    os.close(heard)  # every write is EPIPE, or SIGPIPE
    try:
        assert wait_until(lambda: is_mounted(target))
        assert in_child(outcome, os.mkdir, target / "x") == "EROFS"
        assert in_child((target / "file").read_text) == "source"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_the_last_lines_are_there_when_the_daemon_has_gone(tmp_path: Path, source: Path) -> None:
    with mounted(tmp_path, f"{source}::/::ro", options=["--log-format", "json"]) as target:
        daemon = json.loads(attempt("status", "--json", str(target)).stdout)["pid"]
        for number in range(5):
            in_child(outcome, os.mkdir, target / f"new-{number}")
    log = [json.loads(line) for line in Path(f"{target}.log").read_text().splitlines()]
    assert sum(entry.get("operation") == "mkdir" for entry in log) == 5
    assert all(entry["uid"] == 0 for entry in log if "operation" in entry)
    assert daemon


@pytest.mark.parametrize("where", ["foreground", "background"])
def test_a_crash_is_written_down(
    where: str, tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect that leaves the request loop: the mount stays dead, and the log says why."""
    monkeypatch.setenv("OVERLAYD_WIRE", "off")  # nothing leaves it where answers are direct
    target, log = make_target(tmp_path), tmp_path / "log"
    breaking = ["overlayd.kernel.operations", "Operations", "forget", "--"]
    options = ["-f"] if where == "foreground" else []
    words = [sys.executable, sabotage.__file__, *breaking, "mount", *options]
    words += ["--log-format", "json", "--log-file", str(log), "--dir", f"{source}::/", str(target)]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert wait_until(lambda: is_mounted(target))
        if where == "background":
            assert process.wait(10) == 0
        in_child(os.unlink, target / "file")  # and the kernel forgets it
        assert wait_until(lambda: "ends unexpectedly" in log.read_text())
        if where == "foreground":
            assert process.wait(10) == 1
            assert process.stderr is not None
            said = process.stderr.read()
            assert "failed unexpectedly" in said and "Traceback" not in said
        (line,) = [e for e in map(json.loads, log.read_text().splitlines()) if "traceback" in e]
        assert line["level"] == "critical"
        assert "KeyError: 'sabotage'" in line["traceback"]
    finally:
        process.kill()
        process.communicate()
        detach(target)


PLANNED = """
import trio
from overlayd.cli.main import main
from overlayd.errors import OverlaydError

def fail(*_):
    raise ExceptionGroup("", [ExceptionGroup("", [OverlaydError("planned for; mend it")])])

trio.run = fail
main()
"""


def test_an_error_that_was_planned_for_is_one_line_and_no_crash(
    tmp_path: Path, source: Path
) -> None:
    """Out of the request loop it comes as a group of groups."""
    target = make_target(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PLANNED, "mount", "-f", "--dir", f"{source}::/", str(target)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert complaint(done, 1) == "planned for; mend it"
    assert not is_mounted(target)


def test_a_moved_log_file_is_begun_anew(tmp_path: Path, source: Path) -> None:
    with mounted(tmp_path, f"{source}::/::ro") as target:
        log = Path(f"{target}.log")
        assert wait_until(lambda: "serving" in log.read_text())
        log.rename(tmp_path / "old.log")
        in_child(outcome, os.mkdir, target / "new")
        assert wait_until(lambda: log.exists() and "denied mkdir" in log.read_text())
    assert "denied mkdir" not in (tmp_path / "old.log").read_text()

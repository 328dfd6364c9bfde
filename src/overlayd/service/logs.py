"""Where the daemon's log goes, and in which form; writing it never keeps the event loop waiting.

Records are handed to a thread of their own, which writes them down. Where that cannot keep up (a
terminal that is held, a full pipe, a stuck disk) lines are lost rather than requests delayed, and
how many is said as soon as there is room again.
"""

import atexit
import copy
import json
import logging
import logging.handlers
import os
import queue
import select
import signal
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from overlayd.errors import OverlaydError
from overlayd.table.guest_path import printable

LogFormat = Literal["text", "json"]

_SYSLOG = Path("/dev/log")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_UNDER_JOURNALD = "%(name)s: %(message)s"
_WAITING_LINES = 10_000
_CLOSING_SECONDS = 2.0
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


def set_up_logging(level: str, form: LogFormat, file: str | None, *, background: bool) -> None:
    """Log to *file*, else to stderr, else (in the background) to syslog where there is one.

    Raises OverlaydError where *file* cannot be opened.
    """
    try:
        writer = _writer(form, file, background)
    except OSError as error:
        raise OverlaydError(
            f"--log-file {printable(str(file))}: {(error.strerror or '').lower()};"
            " name a file that can be written"
        ) from None
    root = logging.getLogger()
    for former in root.handlers[:]:
        former.close()
    root.handlers[:] = [Handover(writer)]
    root.setLevel(level.upper())
    logging.getLogger("pyfuse3").setLevel(max(root.level, logging.INFO))
    # The library's own way to end waits for every handler, for ever if one is stuck.
    atexit.unregister(logging.shutdown)
    atexit.register(finish_logging)


def finish_logging() -> None:
    """Write down what is still waiting to be, for up to two seconds: before the process ends."""
    for handler in logging.getLogger().handlers:
        handler.close()


def lost_lines() -> int:
    """How many log lines could not be written so far."""
    return sum(h.lost for h in logging.getLogger().handlers if isinstance(h, Handover))


# -- handing over -------------------------------------------------------------------------------


class Handover(logging.Handler):
    """Gives records to a thread, which gives them to *writer*; `lost` counts those it could not."""

    def __init__(self, writer: logging.Handler, waiting_lines: int = _WAITING_LINES) -> None:
        super().__init__()
        self.lost = 0
        self._writer = writer
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(waiting_lines)
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        with _signals_blocked():  # a signal must find the thread that listens for it
            self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take *record*, or count it as lost; never waits."""
        try:
            self._queue.put_nowait(_settled(record))
        except Exception:  # the queue is full, or the message cannot be put together
            self.lost += 1

    def close(self) -> None:
        """Have everything written that can be within two seconds, and end the thread."""
        with suppress(queue.Full):
            self._queue.put(None, timeout=_CLOSING_SECONDS)
            self._thread.join(_CLOSING_SECONDS)
        super().close()

    def _write_all(self) -> None:
        said = 0
        while (record := self._queue.get()) is not None:
            self._write(record)
            lost = self.lost - said
            if lost:
                said += lost
                self._write(_loss(lost))
        self._writer.close()

    def _write(self, record: logging.LogRecord) -> None:
        try:
            self._writer.emit(record)  # its lock is not taken: the end must not wait for it
        except Exception:  # a full disk, a reader that has gone
            self.lost += 1


def _settled(record: logging.LogRecord) -> logging.LogRecord:
    """A copy of *record* that depends on nothing that may change meanwhile."""
    record = copy.copy(record)
    record.msg, record.args = record.getMessage(), None
    if record.exc_info:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
    return record


def _loss(count: int) -> logging.LogRecord:
    words = "%d log lines were lost: they could not be written as fast as they came"
    return logging.LogRecord(__name__, logging.WARNING, __file__, 0, words, (count,), None)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- writing ------------------------------------------------------------------------------------


class _Telling(logging.Handler):
    """Raises where the library's handlers would complain on stderr."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        raise


class _DescriptorWriter(_Telling):
    """Writes to a descriptor of its own; no buffer, and no lock that the end would wait for."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd

    def emit(self, record: logging.LogRecord) -> None:
        rest = (self.format(record) + "\n").encode(errors="backslashreplace")
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # whoever shares it has made it so
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll(1000)

    def close(self) -> None:
        os.close(self._fd)
        super().close()


class _FileWriter(_DescriptorWriter):
    """Appends to a file; begins a new one like it where it was moved away (logrotate(8))."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        super().__init__(os.open(self._path, _APPEND, 0o666))
        self._mode = stat.S_IMODE(os.fstat(self._fd).st_mode)  # a daemon has no umask

    def emit(self, record: logging.LogRecord) -> None:
        if self._was_moved():
            fresh = os.open(self._path, _APPEND, self._mode)
            os.close(self._fd)
            self._fd = fresh
        super().emit(record)

    def _was_moved(self) -> bool:
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except FileNotFoundError:
            return True


class _SyslogWriter(_Telling, logging.handlers.SysLogHandler):
    """Sends to the machine's syslog."""


def _writer(form: LogFormat, file: str | None, background: bool) -> logging.Handler:
    handler: logging.Handler
    formatter: logging.Formatter = JsonFormatter() if form == "json" else TextFormatter(_TEXT)
    if file is not None:
        handler = _FileWriter(file)
    elif not background:
        handler = _DescriptorWriter(os.dup(2))  # it is redirected for a moment while mounting
        if is_journal(2):
            plain = JsonFormatter() if form == "json" else TextFormatter(_UNDER_JOURNALD)
            formatter = JournalFormatter(plain)
    elif _SYSLOG.exists():
        handler = _SyslogWriter(str(_SYSLOG))
    else:
        handler = logging.NullHandler()
    handler.setFormatter(formatter)
    return handler


def is_journal(fd: int) -> bool:
    """Whether what is written to *fd* goes to journald (systemd.exec(5), $JOURNAL_STREAM)."""
    try:
        status = os.fstat(fd)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


# -- forms --------------------------------------------------------------------------------------


class TextFormatter(logging.Formatter):
    """One line for people, and a traceback below it; a message never forges another line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line without its traceback."""
        record.message = printable(record.message)
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """One JSON object per line; a traceback is a field of it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line for *record*."""
        fields: dict[str, object] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields.update(getattr(record, "fields", {}))
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        elif record.exc_text:
            fields["traceback"] = record.exc_text
        return json.dumps(fields, default=str)


class JournalFormatter(logging.Formatter):
    """What another formatter makes, each line with its priority in front (sd-daemon(3))."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """The line or lines for *record*."""
        priority = next((p for level, p in _PRIORITIES if record.levelno >= level), _DEBUG)
        lines = self._inner.format(record).splitlines()
        return "\n".join(f"<{priority}>{line}" for line in lines)

"""Where the daemon's log goes, and in which form."""

import json
import logging
import logging.handlers
import sys
from pathlib import Path
from typing import Literal

LogFormat = Literal["text", "json"]
LEVELS = ("debug", "info", "warning", "error")

_SYSLOG = Path("/dev/log")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


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
        return json.dumps(fields)


def set_up_logging(level: str, form: LogFormat, file: str | None, *, background: bool) -> None:
    """Log to *file*, else to stderr, else (in the background) to syslog where there is one.

    Raises OSError where *file* cannot be opened.
    """
    handler: logging.Handler
    if file is not None:
        handler = logging.FileHandler(file)
    elif not background:
        handler = logging.StreamHandler(sys.stderr)
    elif _SYSLOG.exists():
        handler = logging.handlers.SysLogHandler(str(_SYSLOG))
    else:
        handler = logging.NullHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(_TEXT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.getLogger("pyfuse3").setLevel(max(root.level, logging.INFO))

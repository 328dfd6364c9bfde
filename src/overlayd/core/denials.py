"""Denied changes, made visible: a log line each, rationed by reason, and counters."""

import logging
import time
from collections import Counter

from overlayd.host.credentials import Caller

log = logging.getLogger(__name__)

_LINES = 5
_SECONDS = 10.0


class Denials:
    """Counts every denial and logs up to five of a kind in ten seconds."""

    def __init__(self) -> None:
        self.by_kind: Counter[str] = Counter()
        self.by_preopen: Counter[str] = Counter()
        self._windows: dict[str, tuple[float, int]] = {}

    def note(
        self, operation: str, guest: str, source: str, kind: str, reason: str, caller: Caller
    ) -> None:
        """One change to *guest*, provided by *source*, was denied for *reason*, one of a *kind*."""
        self.by_kind[kind] += 1
        self.by_preopen[source] += 1
        if self._may_log(kind):
            log.warning(
                "denied %s of %s (%s): %s; pid %d, uid %d",
                *(operation, guest, source, reason, caller.pid, caller.uid),
                extra={
                    "fields": {
                        "operation": operation,
                        "guest": guest,
                        "source": source,
                        "kind": kind,
                        "reason": reason,
                        "pid": caller.pid,
                        "uid": caller.uid,
                        "gid": caller.gid,
                    }
                },
            )

    def _may_log(self, kind: str) -> bool:
        now = time.monotonic()
        began, count = self._windows.get(kind, (now, 0))
        if now - began >= _SECONDS:
            if count > _LINES:
                log.warning("%d more changes were denied like that (%s)", count - _LINES, kind)
            began, count = now, 0
        self._windows[kind] = (began, count + 1)
        return count < _LINES

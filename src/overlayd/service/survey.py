"""All mounts of this user as they are now: which live, which are dead, what the live ones say."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Any

from overlayd.errors import OverlaydError
from overlayd.host.mounts import read_mounts
from overlayd.service.client import ask
from overlayd.service.registry import Record, is_served, read_records, record_path
from overlayd.table.guest_path import printable

_AT_ONCE = 32


class State(Enum):
    """How it is with a mount."""

    LIVE = "live"
    DEAD = "dead"
    """Its daemon is gone and the mount is still there; whoever touches it gets ENOTCONN."""
    SILENT = "no answer"
    """Its daemon lives and did not answer."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One mount as it was found."""

    record: Record
    state: State
    status: dict[str, Any] | None
    """What its daemon says, where it answers."""
    words: str
    """What is the matter, naming target and cure; empty where nothing is."""

    def as_json(self) -> dict[str, Any]:
        """The mount for programs; stable keys."""
        return {
            "target": printable(self.record.target),
            "state": self.state.value,
            "pid": self.record.pid,
            "device": self.record.device,
            "preopens": self.record.preopens,
            "problem": self.words or None,
            "status": self.status,
        }


def survey(seconds: float) -> list[Seen]:
    """Every mount with a record; each daemon is given *seconds*, all at the same time.

    Records of the dead whose mounts are gone as well are left out.
    """
    mounted = {mount.dev for mount in read_mounts()}
    records = [
        record
        for record in read_records()
        if record.device in mounted or is_served(record_path(record.device))
    ]
    return _look_at_all(records, seconds)


def _look_at_all(records: Sequence[Record], seconds: float) -> list[Seen]:
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(lambda record: look_at(record, seconds), records))


def look_at(record: Record, seconds: float) -> Seen:
    """How it is with one mount."""
    target = printable(record.target)
    if not is_served(record_path(record.device)):
        words = f"{target} is dead: its daemon is gone; mount again, or overlayd umount {target}"
        return Seen(record, State.DEAD, None, words)
    try:
        return Seen(record, State.LIVE, ask(record, "status", seconds), "")
    except OverlaydError as error:
        return Seen(record, State.SILENT, None, str(error))

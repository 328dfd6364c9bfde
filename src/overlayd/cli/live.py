"""Which live mount a command means, and asking its daemon."""

from typing import Any

from overlayd.cli.options import Request, absolute_target
from overlayd.errors import OverlaydError
from overlayd.host.mounts import mount_at
from overlayd.service.client import ask
from overlayd.service.ours import is_ours, not_ours
from overlayd.service.registry import Record, find_record
from overlayd.table.guest_path import printable


def record_of(target: str) -> Record:
    """The record of the overlayd mount on *target*. Raises OverlaydError where there is none."""
    path = absolute_target(target, Request())
    mount = mount_at(path)
    shown = printable(path)
    if mount is not None and not is_ours(mount):
        raise OverlaydError(f"{shown} {not_ours(mount)}")
    record = find_record(path, mount.dev if mount is not None else None)
    if record is None and mount is None:
        raise OverlaydError(f"{shown} is not mounted; overlayd status lists what is")
    if record is None:
        raise OverlaydError(
            f"{shown}: no record of it is in the runtime directory; ask as the user who mounted"
            " it, with OVERLAYD_RUNTIME_DIR as it was for overlayd mount"
        )
    return record


def asked(target: str, verb: str, seconds: float, **fields: Any) -> Any:
    """What the daemon behind *target* answers to *verb* within *seconds*. Raises OverlaydError."""
    return ask(record_of(target), verb, seconds, **fields)

"""Whether a mount answers: a request that goes through the kernel to the daemon and back.

Imports next to nothing: service managers start `overlayd health` every few seconds.
"""

import errno
import os
from _thread import allocate_lock, start_new_thread

from overlayd.errors import OverlaydError
from overlayd.host.mounts import mount_at, resolve_mount_point
from overlayd.service.ours import DEAD_ERRORS, is_ours, not_ours
from overlayd.table.guest_path import NAME_MAX, printable

TYPE_CHECKING = False  # as in typing, which takes time
if TYPE_CHECKING:
    from collections.abc import Callable

# The kernel passes on names of up to 1024 bytes (FUSE_NAME_MAX, fs/fuse/fuse_i.h) and remembers no
# answer to one that is too long: only the daemon can say so, and it asks no source about it.
_PROBE = "." * (NAME_MAX + 1)


PATIENCE = 2.0
"""Seconds that are waited for an answer where nobody says how many."""


def seconds_in(text: str) -> float | None:
    """How long *text* says to wait for an answer; None where that is no such time."""
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 < seconds <= 3600 else None


def require_health(target: str, seconds: float) -> None:
    """Raise OverlaydError, with the reason, unless the mount on *target* answers in time."""
    path = resolve_mount_point(target)
    reason = unhealthy(path, seconds)
    if reason is not None:
        raise OverlaydError(f"{printable(path)} {printable(reason)}")


def unhealthy(target: str, seconds: float) -> str | None:
    """Why the overlayd mount on *target* is not well, in words; None if it answered in time."""
    mount = mount_at(target)
    if mount is None:
        return "is not mounted"
    if not is_ours(mount):
        return not_ours(mount)
    answer = within(seconds, lambda: ask(target))
    if answer is None:
        return f"did not answer within {seconds:g} s"
    if answer in DEAD_ERRORS:
        return "is dead: its daemon is gone; mount again, or clear it with overlayd umount"
    if answer == errno.EACCES:
        return "may be looked at only by the user who mounted it (--allow-other lets others in)"
    return None if answer == errno.ENAMETOOLONG else os.strerror(answer).lower()


def within(seconds: float, ask: "Callable[[], int]") -> int | None:
    """What *ask* gives within *seconds*, else None: it is left behind in a thread of its own."""
    answers: list[int] = []
    answered = allocate_lock()
    answered.acquire()

    def note() -> None:
        answers.append(ask())
        answered.release()

    start_new_thread(note, ())  # `threading` costs more to import than all of this to run
    answered.acquire(timeout=seconds)
    return answers[0] if answers else None


def ask(target: str) -> int:
    """The errno of one request that only the daemon can answer: ENAMETOOLONG if it does."""
    try:
        # By descriptor: a long path to the target must not make the name too long all by itself.
        top = os.open(target, os.O_PATH | os.O_CLOEXEC)
        try:
            os.stat(_PROBE, dir_fd=top, follow_symlinks=False)
        finally:
            os.close(top)
    except OSError as error:
        return error.errno or errno.EIO
    return 0

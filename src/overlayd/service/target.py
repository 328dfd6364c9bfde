"""The target: checked before a mount, cleared of a dead one, and taken down at the end."""

import errno
import os
import shlex
import shutil
import subprocess
from contextlib import suppress

from overlayd.errors import OverlaydError
from overlayd.host.mounts import Mount, detach, mount_at, read_mounts, unmount
from overlayd.service.health import within
from overlayd.service.ours import DEAD_ERRORS, is_ours
from overlayd.table.guest_path import printable

_PROBE_SECONDS = 2.0


def prepare_target(
    target: str, *, replace: bool, allow_nonempty: bool, create_mode: int | None = None
) -> None:
    """Make sure that *target* can be mounted on; a dead mount of ours on it is detached first.

    With *replace* a live one of ours goes too; nothing else is ever unmounted. With *create_mode*
    a missing target is made with that mode: only now, since a dead mount can be neither seen into
    nor made anew. Raises OverlaydError naming the target and the cure.
    """
    clear_dead_mount(target)
    _clear_live_mount(target, replace)
    if create_mode is not None:
        _create(target, create_mode)
    shown = printable(target)
    try:
        entries = os.listdir(target)
    except FileNotFoundError:
        made = printable(shlex.quote(target))
        raise OverlaydError(f"target {shown} does not exist; create it: mkdir -p {made}") from None
    except NotADirectoryError:
        raise OverlaydError(f"target {shown} is not a directory; name an empty one") from None
    except OSError as error:
        raise OverlaydError(
            f"target {shown} cannot be used: {_words(error)}; name a directory you may read"
        ) from None
    if entries and not allow_nonempty:
        raise OverlaydError(
            f"target {shown} is not empty, and a mount would hide what it holds;"
            " name an empty directory, or add -o nonempty"
        )


def _create(target: str, mode: int) -> None:
    """Make the directory *target* with exactly *mode* unless it exists, and what leads to it."""
    try:
        _make_parents(os.path.dirname(target))
        with suppress(FileExistsError):
            os.mkdir(target, mode)
            os.chmod(target, mode)  # whatever the umask, and with the sticky bit
    except OSError as error:
        raise OverlaydError(
            f"target {printable(target)} cannot be created: {_words(error)};"
            " name a place that can be written"
        ) from None


def _make_parents(path: str) -> None:
    """Like os.makedirs, which would leave all but the last one to the umask, and ours is 0."""
    if not os.path.isdir(path):
        _make_parents(os.path.dirname(path))
        with suppress(FileExistsError):
            os.mkdir(path, 0o755)


def clear_dead_mount(target: str) -> None:
    """Detach a mount of ours whose daemon is gone from *target*, if there is one."""
    former = mount_at(target)
    if former is not None and is_ours(former) and _is_dead(target):
        take_down(target, former)


def _clear_live_mount(target: str, replace: bool) -> None:
    former = mount_at(target)
    if former is None or not is_ours(former):
        return
    if not replace:
        shown = printable(target)
        raise OverlaydError(
            f"target {shown} already holds a live overlayd mount; unmount it first"
            f" (overlayd umount {shown}), or take its place with --replace"
        )
    take_down(target, former)


def _is_dead(target: str) -> bool:
    """Whether the daemon behind a mount is gone: the kernel then answers ENOTCONN at once.

    One that is alive and does not answer in time counts as live.
    """

    def ask() -> int:
        try:
            os.statvfs(target)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    return within(_PROBE_SECONDS, ask) in DEAD_ERRORS


def take_down(target: str, mount: Mount, *, lazy: bool = True) -> None:
    """Unmount *mount* from *target*, as root or through fusermount3.

    Raises OverlaydError where it is busy (unless *lazy*) or covered by another mount, or the caller
    may not.
    """
    shown = printable(target)
    topmost = mount_at(target)
    if topmost != mount:
        if topmost is not None and mount in read_mounts():
            raise OverlaydError(
                f"{shown} is covered by another mount ({topmost.fs_type}), which is not ours to"
                f" take off; unmount that one (umount {shown}), then overlayd's (overlayd umount"
                f" {shown})"
            )
        return
    try:
        _unmount(target, lazy)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise OverlaydError(
                f"{shown} is busy: something has files or its working directory there;"
                f" stop it (fuser -vm {shown} lists it), or use --lazy"
            ) from None
        raise OverlaydError(f"{shown} cannot be unmounted: {_words(error)}") from None


def _unmount(target: str, lazy: bool) -> None:
    if os.geteuid() == 0:
        (detach if lazy else unmount)(target)
        return
    helper = shutil.which("fusermount3")
    if helper is None:
        raise OSError(errno.EPERM, "only root can, or fusermount3 (Debian package fuse3)")
    command = [helper, "-u", *(["-z"] if lazy else []), "--", target]
    # Its words are translated nowhere, but the C locale makes sure of strerror's.
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, check=False, capture_output=True, env=environment)
    if done.returncode != 0:
        busy = b"busy" in done.stderr
        number = errno.EBUSY if busy else errno.EPERM
        raise OSError(number, "only root or the user who mounted it can")


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()

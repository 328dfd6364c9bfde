"""Which mounts of this user are live: one locked record per mount, in the runtime directory.

The daemon holds a lock on its record for as long as it lives, so a record left by a killed daemon
tells itself: it is not locked. Whoever wants to know when a daemon has gone waits for the lock.
"""

import fcntl
import json
import os
import signal
import stat
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from overlayd.errors import OverlaydError
from overlayd.table.guest_path import printable

_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Record:
    """What a live mount tells about itself."""

    target: str
    device: int
    pid: int
    preopens: list[str]


def runtime_directory() -> Path:
    """Where records lie: `$OVERLAYD_RUNTIME_DIR`, else /run/overlayd, else the user's own.

    Raises OverlaydError for a relative one, which would mean another place to each process.
    """
    override = os.environ.get("OVERLAYD_RUNTIME_DIR")
    if override:
        if not os.path.isabs(override):
            raise OverlaydError(
                f"OVERLAYD_RUNTIME_DIR={printable(override)}: give an absolute path"
            )
        return Path(override)
    if os.geteuid() == 0:
        return Path("/run/overlayd")
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base, "overlayd") if base else Path(f"/tmp/overlayd-{os.getuid()}")


def refuse_place_inside(target: str) -> None:
    """Raise OverlaydError where the runtime directory lies in *target*, before that is mounted on.

    The record and the control socket would be looked for in the mount that they are about.
    """
    directory = runtime_directory()
    real, top = os.path.realpath(directory), os.path.realpath(target)
    if os.path.commonpath((real, top)) == top:
        raise OverlaydError(
            f"runtime directory {printable(str(directory))} lies inside the target"
            f" {printable(target)}; set OVERLAYD_RUNTIME_DIR to a directory elsewhere"
        )


class Registration:
    """This daemon's own record; remove it when the mount is gone."""

    def __init__(self, record: Record) -> None:
        """Write the record, locked from the moment it can be seen; sweep those of the dead.

        Raises OverlaydError where the runtime directory cannot be used.
        """
        directory = _own_directory()
        self._path = directory / f"{record.device}.json"
        try:
            _sweep(directory)
            self._fd = _write(directory, self._path, record)
        except OSError as error:
            raise _unusable(directory, error) from None

    @property
    def path(self) -> Path:
        """Where the record lies."""
        return self._path

    def update(self, record: Record) -> None:
        """Write *record*, of the same mount, over what there was.

        In place, since waiters hold a lock on this very file; never shorter than it was, so that
        no reader finds the end of one text behind another.
        """
        with suppress(OSError):  # the disk is full: only `status` without a daemon shows it
            os.pwrite(self._fd, _text(record).ljust(os.fstat(self._fd).st_size), 0)

    def remove(self) -> None:
        """Take the record back, and the socket beside it.

        The lock goes with this process, which is what waiters wait for.
        """
        _remove_own(self._path, self._fd)


def _write(directory: Path, path: Path, record: Record) -> int:
    """Write *record*, locked from the moment it can be seen at *path*; its descriptor.

    Not in place: the daemon that had this device number may not be quite gone. And by a name of its
    own: containers that share the directory have process ids in common.
    """
    while True:
        fd, unfinished = tempfile.mkstemp(".new", "", directory)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(fd, _text(record))
            os.rename(unfinished, path)
        except (BlockingIOError, FileNotFoundError):  # another one swept it before it was locked
            os.close(fd)
        else:
            return fd


def _text(record: Record) -> bytes:
    return json.dumps(asdict(record)).encode()


def _remove_own(path: Path, fd: int) -> None:
    """Unlink the record at *path*, if it still is what is open as *fd*, with its socket."""
    with suppress(OSError):
        if os.path.samestat(os.lstat(path), os.fstat(fd)):
            with suppress(OSError):
                os.unlink(socket_of(path))
            os.unlink(path)


def _sweep(directory: Path) -> None:
    """Remove records whose daemons were killed: nothing holds a lock on them."""
    for path in (*directory.glob("*.json"), *directory.glob("*.new")):
        with suppress(OSError):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                _remove_own(path, fd)
            finally:
                os.close(fd)
    for path in directory.glob("*.sock"):  # its record went first
        if not path.with_suffix(".json").exists():
            with suppress(OSError):
                os.unlink(path)
    for path in directory.glob("*.sock.new"):  # killed before it could be called
        if not os.path.exists(f"/proc/{path.name.partition('.')[0]}"):
            with suppress(OSError):
                os.unlink(path)


def _own_directory() -> Path:
    directory = runtime_directory()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.lstat(directory)
    except OSError as error:
        raise _unusable(directory, error) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise OverlaydError(
            f"runtime directory {printable(str(directory))} belongs to somebody else;"
            " set OVERLAYD_RUNTIME_DIR to a directory of your own"
        )
    return directory


def _unusable(directory: Path, error: OSError) -> OverlaydError:
    return OverlaydError(
        f"runtime directory {printable(str(directory))}: {(error.strerror or '').lower()};"
        " set OVERLAYD_RUNTIME_DIR to a directory of your own"
    )


def has_record(device: int) -> bool:
    """Whether a daemon of this user serves *device*, or did until it was killed."""
    return record_path(device).exists()


def read_records() -> list[Record]:
    """Every record of this user, of live mounts and of dead ones, by target."""
    try:
        paths = list(runtime_directory().glob("*.json"))
    except OSError:
        return []
    records = [record for path in paths if (record := _read(path)) is not None]
    return sorted(records, key=lambda record: record.target)


def find_record(target: str, device: int | None) -> Record | None:
    """The record of the mount on *target*, which here shows as *device* (None: as no mount).

    What is mounted in another mount namespace is known by its target alone.
    """
    if device is not None:
        return _read(record_path(device))
    served = (r for r in read_records() if r.target == target and is_served(record_path(r.device)))
    return next(served, None)


def _read(path: Path) -> Record | None:
    try:
        content = json.loads(path.read_bytes())
        record = Record(**content)
    except (OSError, ValueError, TypeError):  # gone meanwhile, or no record of ours
        return None
    return record if record.device == _device_of(path) else None


def _device_of(path: Path) -> int:
    return int(path.stem) if path.stem.isdecimal() else -1


def record_path(device: int) -> Path:
    """Where the record of a mount with this device number lies, if this user has one."""
    return runtime_directory() / f"{device}.json"


def socket_of(record: Path) -> Path:
    """Where the control socket of the daemon that wrote *record* lies."""
    return record.with_suffix(".sock")


def is_served(record: Path) -> bool:
    """Whether the daemon that wrote *record* lives."""
    try:
        fd = os.open(record, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _is_locked(fd)
    finally:
        os.close(fd)


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


class DaemonWatch:
    """Waits for the daemon behind a mount to go; begin before the mount is taken down."""

    def __init__(self, device: int) -> None:
        self._fd: int | None = None
        self._path = record_path(device)
        with suppress(FileNotFoundError, PermissionError):  # none, or another user's mount
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def wait(self, seconds: float) -> bool:
        """Whether the daemon went within *seconds*; True where none has left a record."""
        deadline = time.monotonic() + seconds
        while self._fd is not None and not self._is_gone():
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS)
        if self._fd is not None:
            _remove_own(self._path, self._fd)  # a killed daemon leaves it
            os.close(self._fd)
            self._fd = None
        return True

    def stop(self) -> None:
        """Tell the daemon to end, if it still lives."""
        if self._fd is None:
            return
        with suppress(ProcessLookupError):
            process = os.pidfd_open(json.loads(os.pread(self._fd, 1 << 20, 0))["pid"])
            if not self._is_gone():  # so the number was, and is, that of the daemon
                signal.pidfd_send_signal(process, signal.SIGTERM)
            os.close(process)

    def _is_gone(self) -> bool:
        assert self._fd is not None
        return not _is_locked(self._fd)

"""Where the trees are: a file system of their own, gone with all that uses it when the run ends.

That of the machine would do, but for its disk, for what else uses it, and for habits such as that
of an ext4 without a journal, where creating is slow for a minute after much was removed. What lies
in memory is an ext4 nevertheless: tmpfs has fewer ways of reading than what hosts have on disks.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.measure import tell
from benchmarks.subjects import SubjectError, complete
from support.isolation import force_off, mounts_below
from support.mounting import unescape
from support.processes import daemons_of, has_ended, wait_until

MEMORY = "/dev/shm"
BYTES, INODES = 12 * 2**30, 2_500_000
"""Of the own file system: what is not used takes no room."""
FREE_BYTES = 6 * 2**30
"""As much memory there must be to spare for it to lie there."""
ENDING_SECONDS = 5.0


@contextmanager
def place_below(directory: str, own_disk: bool) -> Iterator[tuple[Path, str]]:
    """A directory in which everything is, and the file system it is on.

    It lies below DIRECTORY; with OWN_DISK a file system is made for it, if that is possible.
    Nothing is left of it when the block ends: no mount, no process, no file.
    """
    place = Path(tempfile.mkdtemp(prefix="overlayd-bench-", dir=directory)).resolve()
    place.chmod(0o755)
    os.environ["OVERLAYD_RUNTIME_DIR"] = str(place / "run")
    try:
        kind = mount_disk(place) if own_disk else ""
        yield place, kind or file_system_of(place)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        tell("clearing away")
        clear(place)


def mount_disk(place: Path) -> str:
    """Mount an ext4 of its own on PLACE; what it is, or nothing where that is not possible."""
    in_memory = _spare_bytes() >= FREE_BYTES
    where = MEMORY if in_memory else str(place.parent)
    handle, image = tempfile.mkstemp(prefix="overlayd-bench-", dir=where)
    try:
        os.truncate(handle, BYTES)
        lazily = "lazy_itable_init=0,lazy_journal_init=0"  # nothing to be done later
        complete(["mkfs.ext4", "-q", "-F", "-E", lazily, "-N", str(INODES), image])
        complete(["mount", "-o", "loop", image, str(place)])
    except (SubjectError, FileNotFoundError) as error:
        tell(f"no file system of its own, on that of {place.parent}: {error}", keep=True)
        return ""
    finally:
        os.close(handle)
        os.unlink(image)  # the mount holds it, and nothing else is to outlive this program
    place.chmod(0o755)
    return f"an ext4 of their own, {'in memory' if in_memory else 'in a file'}"


def _spare_bytes() -> int:
    """What may be taken of memory."""
    if not os.path.isdir(MEMORY):
        return 0
    room = os.statvfs(MEMORY)
    lines = Path("/proc/meminfo").read_text().splitlines()
    available = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    return min(room.f_bavail * room.f_frsize, available * 1024)


def file_system_of(place: Path) -> str:
    """The type of what PLACE lies on: that of the longest mount point above."""
    best = ("", "unknown")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        point = unescape(fields[4]).rstrip("/")
        if str(place).startswith(f"{point}/") and len(point) >= len(best[0]):
            best = (point, fields[fields.index("-") + 1])
    return best[1]


def clear(place: Path) -> None:
    """Unmount all on and below PLACE, end what runs for it, and remove it."""
    for point in mounts_below(place):
        force_off(Path(point))
    processes = daemons_of(place / "run")
    if not wait_until(lambda: all(map(has_ended, processes)), ENDING_SECONDS):
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
    force_off(place)
    with suppress(FileNotFoundError):
        subprocess.run(["rm", "-rf", place], check=False)  # faster for so many files
    shutil.rmtree(place, ignore_errors=True)

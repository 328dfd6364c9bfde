"""What a guest does for the second time needs no request, however long after the first."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from coherence.counted import PAUSE, CountedMount, counted, only
from support.planting import plant
from support.processes import in_child, outcome

pytestmark = pytest.mark.alone

PATIENCE = 1.5
"""Seconds; no cache that goes by the clock lasts so long."""

OPENING = ("open", "release", "opendir", "releasedir")
"""Each open is asked for: the daemon decides every one."""


def besides_listings(requests: Counter[str], *operations: str) -> dict[str, int]:
    """What of REQUESTS is neither one of OPERATIONS nor part of opening and listing.

    A directory that had to be listed again, where the kernel keeps no listings, has been read:
    the kernel no longer knows its access time, and asks for it with the attributes.
    """
    rest = only(requests, *OPENING, *operations, "readdir", "getattr")
    if requests["getattr"] > requests["readdir"]:
        rest["getattr"] = requests["getattr"]
    return rest


def walk(top: Path) -> int:
    """As `ls -lR` does; how many there are."""
    return sum(
        len([os.lstat(os.path.join(place, name)) for name in (*dirs, *files)])
        for place, dirs, files in os.walk(top)
    )


@pytest.fixture(scope="module")
def files() -> list[str]:
    return [f"dir{number % 5}/deep/file{number}" for number in range(100)]


@pytest.fixture
def mount(tmp_path: Path, files: list[str]) -> Iterator[CountedMount]:
    """A mount of a hundred files in five directories, with everything in them known."""
    source = plant(tmp_path / "source", *(f"{name}=content of {name}" for name in files))
    with counted(tmp_path, f"{source}::/") as mount:
        for _ in range(2):  # the first answers may be short-lived: nothing was watched before
            in_child(lambda: [use(mount.top, files) for use in USES.values()])
            time.sleep(PAUSE)
        yield mount


def stat_all(top: Path, files: list[str]) -> None:
    for name in files:
        assert os.stat(top / name).st_size == len(f"content of {name}")


def stat_absent(top: Path, files: list[str]) -> None:
    for name in files:
        assert outcome(os.stat, top / f"{name}.absent") == "ENOENT"


def read_all(top: Path, files: list[str]) -> None:
    for name in files:
        assert (top / name).read_text() == f"content of {name}"


def walk_all(top: Path, files: list[str]) -> None:
    assert walk(top) == len(files) + 10


ATTEMPTS = 4
"""Some kernels give pages back that nobody has used for a second (DAMON); not each time."""
USES = {"read": read_all, "walk": walk_all, "stat": stat_all, "absent": stat_absent}


def asked_again(mount: CountedMount, files: list[str]) -> dict[str, dict[str, int]]:
    """What is asked for by whoever does everything once more, and need not be."""
    taken = {name: mount.of(partial(use, mount.top, files)) for name, use in USES.items()}
    walked = besides_listings(taken["walk"])
    if mount.keeps_listings():
        walked = only(taken["walk"], "opendir", "releasedir")
    return {
        "stat": dict(taken["stat"]),
        "absent": dict(taken["absent"]),
        "read": only(taken["read"], *OPENING),
        "walk": walked,
    }


@pytest.mark.usefixtures("data_way")
def test_the_second_time(mount: CountedMount, files: list[str]) -> None:
    nothing: dict[str, dict[str, int]] = {name: {} for name in USES}
    for _ in range(ATTEMPTS):
        time.sleep(PATIENCE)
        asked = asked_again(mount, files)
        if asked == nothing:
            break
    assert asked == nothing


def test_an_open_file_is_read_again(tmp_path: Path) -> None:
    source = plant(tmp_path / "source")
    (source / "file").write_bytes(os.urandom(1 << 20))

    def again() -> Counter[str]:
        assert os.pread(fd, 2 << 20, 0) == data
        before = mount.requests()
        time.sleep(PATIENCE)
        assert os.pread(fd, 2 << 20, 0) == data
        os.fstat(fd)
        os.fstat(fd)
        return mount.requests() - before

    # Past the daemon, the kernel asks for the access time after each read.
    with counted(tmp_path, f"{source}::/", passthrough="off") as mount:
        data = (source / "file").read_bytes()
        fd = os.open(mount.top / "file", os.O_RDONLY)
        try:
            os.fstat(fd)
            os.pread(fd, 2 << 20, 0)
            os.fstat(fd)
            assert any(not in_child(again) for _ in range(ATTEMPTS))
        finally:
            os.close(fd)


# -- programs -------------------------------------------------------------------------------------


def ran(*words: str, **environment: str) -> Callable[[], str]:
    """Runs a program, which must succeed; what it prints."""

    def run() -> str:
        return subprocess.run(
            words,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        ).stdout

    return run


def asked_by_a_second_run(
    mount: CountedMount, program: Callable[[], str], *operations: str
) -> dict[str, int]:
    """What PROGRAM, which has run before, asks for besides OPERATIONS and what listing takes."""
    before = [in_child(program) for _ in range(2)]
    for _ in range(ATTEMPTS):
        time.sleep(PAUSE)
        rest = besides_listings(mount.of(program), *operations)
        if not rest:
            break
    assert before == [in_child(program)] * 2
    return rest


@pytest.mark.usefixtures("data_way")
def test_the_second_git_status(tmp_path: Path, files: list[str]) -> None:
    source = plant(tmp_path / "source", *(f"{name}={name}" for name in files))
    for name in files:  # long before the index is written: git looks again at what is as new
        os.utime(source / name, (1e9, 1e9))
    identity = ("-c", "user.name=n", "-c", "user.email=e")
    for words in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "first"]):
        ran("git", "-C", str(source), *words)()
    (source / files[0]).write_text("changed")
    with counted(tmp_path, f"{source}::/") as mount:
        # Without the lock: it is a name made and removed each time.
        settings = {"GIT_OPTIONAL_LOCKS": "0", "GIT_CONFIG_GLOBAL": "/dev/null"}
        in_child(ran("git", "-C", str(mount.top), "status"))  # learns the inode numbers
        status = ran("git", "-C", str(mount.top), "status", "--short", **settings)
        assert in_child(status) == f" M {files[0]}\n"
        assert not asked_by_a_second_run(mount, status, "access")


@pytest.mark.usefixtures("data_way")
def test_the_second_interpreter_start(tmp_path: Path) -> None:
    library = sysconfig.get_path("stdlib")
    version = Path(library).name
    with counted(tmp_path, f"{library}::/lib/{version}::ro") as mount:
        program = "import json, email.message, logging; print(json.__file__)"
        start = ran(
            f"{sys.base_prefix}/bin/{version}",
            *("-SBsc", program),
            PYTHONHOME=str(mount.top),
            PYTHONPATH="",
        )
        assert in_child(start) == f"{mount.top}/lib/{version}/json/__init__.py\n"
        assert not asked_by_a_second_run(mount, start)

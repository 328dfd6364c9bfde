"""Whole programs on the tree: git, tar, a Python interpreter, a guest under wasmtime."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import sysconfig
import tarfile
from pathlib import Path

from benchmarks.measure import Row, Turn, Workload, Workshop, run_quietly
from benchmarks.subjects import SubjectError, complete
from benchmarks.workloads import make_empty, rows
from support import toolchain

IN_A_DIRECTORY = 20
LONG_AGO = 1_600_000_000
"""A time of files that no index of git can take for that of its own writing."""

GIT = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_AUTHOR_NAME": "bench",
    "GIT_AUTHOR_EMAIL": "bench@example.org",
    "GIT_COMMITTER_NAME": "bench",
    "GIT_COMMITTER_EMAIL": "bench@example.org",
    "LC_ALL": "C",
}
"""Nothing of the user's own; and `status` does not write the index, so that each does the same."""

LEFT_OUT = ("test", "tests", "site-packages", "dist-packages", "idlelib", "lib2to3", "ensurepip")
IMPORTS = "asyncio, email.message, http.client, json, sqlite3, unittest, xml.dom.minidom"

RUN_WASMTIME = toolchain.REPOSITORY / "tests/guests/run_wasmtime.py"


def names(count: int) -> list[str]:
    """Paths of COUNT files, some in a directory."""
    return [f"d{number // IN_A_DIRECTORY}/f{number}.txt" for number in range(count)]


# -- git ------------------------------------------------------------------------------------------


def plant_git(shop: Workshop, source: Path) -> None:
    """A clone of one repository, whose files are as old as if they had been there for long."""
    template = shop.scratch / "repository.git"
    if not template.exists():
        _make_repository(template, shop.sizes.git)
    place = source / "git"
    environment = os.environ | GIT
    clone = ["git", "clone", "--quiet", "--no-hardlinks", str(template), str(place)]
    complete(clone, env=environment, timeout=300)
    for top, _, files in os.walk(place):
        for name in files:
            if ".git" not in Path(top).parts:
                os.utime(os.path.join(top, name), (LONG_AGO, LONG_AGO))


def _make_repository(place: Path, count: int) -> None:
    """A bare repository with one commit of COUNT files."""
    stream = io.StringIO()
    stream.write("commit refs/heads/main\ncommitter bench <bench@example.org> 1600000000 +0000\n")
    stream.write("data 4\nall\n")
    for name in names(count):
        text = f"the text of {name}\n" * 5
        stream.write(f"M 644 inline {name}\ndata {len(text)}\n{text}\n")
    complete(["git", "init", "--quiet", "--bare", "-b", "main", str(place)], env=os.environ | GIT)
    instructions = place.with_suffix(".import")
    instructions.write_text(stream.getvalue())
    script = 'git --git-dir="$1" fast-import --quiet <"$2"'
    complete(["sh", "-c", script, "sh", str(place), str(instructions)], env=os.environ | GIT)


def run_git(turn: Turn) -> dict[str, float]:
    """`git status`, twice.

    The index holds inode numbers, which differ from subject to subject: in the first round it is
    written through the mount, which is then made anew.
    """
    environment = os.environ | GIT
    place = str(turn.at("git"))
    if turn.number == 0:
        refresh = {**environment, "GIT_OPTIONAL_LOCKS": "1"}
        complete(["git", "-C", place, "status", "--porcelain"], env=refresh, timeout=300)
        turn.subject.renew()
    words = ["git", "-C", place, "status", "--porcelain"]
    values = {}
    for row in ("git-status-cold", "git-status-warm"):
        values[row] = turn.shop.timed(words, env=environment)
    if said := complete(words, env=environment):
        raise SubjectError(f"git takes files for changed: {said.splitlines()[0]}")
    return values


# -- tar ------------------------------------------------------------------------------------------


def plant_tar(shop: Workshop, source: Path) -> None:
    """An empty directory; and, once, the tarball, which lies beside all trees."""
    (source / "tar").mkdir()
    ball = shop.scratch / "ball.tar"
    if ball.exists():
        return
    with tarfile.open(ball, "w") as tar:
        for name in names(shop.sizes.tar):
            member = tarfile.TarInfo(f"top/{name}")
            member.size, member.mtime = 4096, LONG_AGO
            tar.addfile(member, io.BytesIO(b"x" * 4096))


def run_tar(turn: Turn) -> dict[str, float]:
    """Unpack it, and delete what came out."""
    make_empty(turn.subject.source / "tar")
    ball, place = turn.shop.scratch / "ball.tar", turn.at("tar")
    return {
        "tar-unpack": turn.shop.timed(["tar", "-xf", str(ball), "-C", str(place)]),
        "tar-delete": turn.shop.timed(["rm", "-r", str(place / "top")]),
    }


# -- Python ---------------------------------------------------------------------------------------


def _version() -> str:
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def plant_python(shop: Workshop, source: Path) -> None:
    """The standard library, compiled."""
    template = shop.scratch / "python"
    if not template.exists():
        library = template / "lib" / _version()
        ignore = shutil.ignore_patterns(*LEFT_OUT, "config-*", "*.a")
        shutil.copytree(
            sysconfig.get_path("stdlib"), library, ignore=ignore, ignore_dangling_symlinks=True
        )
        run_quietly([sys.executable, "-m", "compileall", "-q", str(library)])
    shutil.copytree(template, source / "python")


def run_python(turn: Turn) -> dict[str, float]:
    """An interpreter that finds its library there and imports some of it; twice."""
    home = turn.at("python")
    interpreter = str(Path(sys.executable).resolve())
    environment = {"PYTHONHOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "LC_ALL": "C.UTF-8"}
    words = [interpreter, "-s", "-S", "-c", f"import {IMPORTS}"]
    values = {}
    for row in ("python-first", "python-second"):
        values[row] = turn.shop.timed(words, env=environment)
    asked = [interpreter, "-s", "-S", "-c", "import json; print(json.__file__)"]
    found = complete(asked, env=environment).strip()
    if not found.startswith(str(home)):
        raise SubjectError(f"the interpreter took its library from {found}")
    return values


# -- wasmtime -------------------------------------------------------------------------------------


def plant_guest(shop: Workshop, source: Path) -> None:
    """Files for the guest; and the guest and its runtime, where they have not been made yet."""
    toolchain.guest("many_files")
    toolchain.wasmtime_package(toolchain.NEWEST)
    for name in ("stat", "open"):
        (source / "guest" / name).mkdir(parents=True)
        shop.client("plant", source / "guest" / name, shop.sizes.guest, "-s", "100")


def run_guest(turn: Turn) -> dict[str, float]:
    """A guest that stats and opens many files, and takes the time itself."""
    words = [sys.executable, str(RUN_WASMTIME), "--dir", f"{turn.at('guest')}::/"]
    words += [str(toolchain.guest("many_files")), "/", str(turn.sizes.guest)]
    package = str(toolchain.wasmtime_package(toolchain.NEWEST))
    environment = os.environ | {"PYTHONPATH": package}
    said = json.loads(complete(words, env=environment, timeout=300))
    return {f"wasmtime-{name}": value for name, value in said.items()}


WORKLOADS = (
    Workload(
        "git-status",
        rows(
            ("git-status-cold", "git status, {git:,} files, cold"),
            ("git-status-warm", "git status, {git:,} files, second"),
            unit="ms",
        ),
        run_git,
        plant_git,
    ),
    Workload(
        "tar",
        rows(
            ("tar-unpack", "unpack {tar:,} files with tar"),
            ("tar-delete", "delete them with rm -r"),
            unit="ms",
        ),
        run_tar,
        plant_tar,
    ),
    Workload(
        "python",
        rows(
            ("python-first", "start of a Python interpreter, first"),
            ("python-second", "start of a Python interpreter, second"),
            unit="ms",
        ),
        run_python,
        plant_python,
    ),
    Workload(
        "wasmtime",
        (
            Row("wasmtime-stat", "guest under wasmtime: stat of {guest:,} files, each"),
            Row("wasmtime-open", "guest under wasmtime: open of {guest:,} files, each"),
            Row("wasmtime-stat-warm", "the same guest again: stat"),
            Row("wasmtime-open-warm", "the same guest again: open"),
        ),
        run_guest,
        plant_guest,
    ),
)

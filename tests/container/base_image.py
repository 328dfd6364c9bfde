"""Base images without a registry: Debian's own files, as dpkg lists them on this machine.

An image holds the essential packages, apt, and those that a stage of the Containerfile asks for,
with what they depend on; apt-get runs in it for real, finds these installed, and needs no network.
A package that a stage uses and does not ask for is missing in the image too.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path

_NOT_NEEDED = re.compile(
    r"/usr/share/(doc|man|locale|info|perl)/|/lto1$|lto-dump|(?<!g)san\.so|/libpython.*\.a$"
)
_LINKS_OF_MERGED_USR = ("/bin", "/sbin", "/lib", "/lib64")
_OWN_FILES = ("/etc/passwd", "/etc/group", "/var/lib/dpkg/status", "/etc/ld.so.cache")


def write_base_image(tar: Path, packages: Iterable[str]) -> None:
    """Write a file system with PACKAGES and Debian's essential ones to the file TAR."""
    names = _installed(_with_dependencies([*_essential(), "apt", *packages]))
    listed = _said("dpkg-query", "--listfiles", *sorted(names)).splitlines()
    paths = {_canonical(path) for path in listed if path.startswith("/")}
    paths |= {*_LINKS_OF_MERGED_USR, *_OWN_FILES}
    with tarfile.open(tar, "w") as archive:
        for path in sorted(paths):
            if os.path.lexists(path) and not _NOT_NEEDED.search(path):
                archive.add(path, recursive=False)


def write_busybox_image(tar: Path) -> None:
    """Write a file system to TAR with busybox as every command it knows."""
    with tarfile.open(tar, "w") as archive:
        for directory in ("bin", "dev", "etc", "proc", "sys", "tmp"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        archive.add(os.path.realpath("/bin/busybox"), "bin/busybox")
        for command in _said("/bin/busybox", "--list").split():
            if command != "busybox":
                link = tarfile.TarInfo(f"bin/{command}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(link)
        users = b"root:x:0:0:root:/:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(users)
        archive.addfile(entry, io.BytesIO(users))


def _essential() -> list[str]:
    rows = _said("dpkg-query", "--show", "--showformat", "${Essential} ${Package}\n").splitlines()
    return [row.split()[1] for row in rows if row.startswith("yes ")]


def _with_dependencies(packages: list[str]) -> set[str]:
    """PACKAGES and what must be installed with them, virtual packages included."""
    wanted = ["--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks"]
    wanted += ["--no-replaces", "--no-enhances"]
    said = _said("apt-cache", "depends", "--recurse", "--installed", *wanted, *packages)
    return {line.split(":")[0] for line in said.splitlines() if line[:1].strip()}


def _installed(names: set[str]) -> set[str]:
    shown = _said("dpkg-query", "--show", "--showformat", "${db:Status-Status} ${Package}\n")
    return names & {line.split()[1] for line in shown.splitlines() if line[:10] == "installed "}


def _canonical(path: str) -> str:
    """PATH as it must be in the archive: /bin is a link, and `bin/sh` cannot lie below one."""
    directory, name = os.path.split(path)
    return os.path.join(_real(directory), name)


@cache
def _real(directory: str) -> str:
    return os.path.realpath(directory)


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout

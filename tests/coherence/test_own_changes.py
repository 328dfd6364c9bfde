"""What a guest changes itself teaches the kernel, and no echo of it from the host unteaches it.

How much the kernel asks again in any case is shown by a mount that keeps everything for an hour and
watches nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from coherence.counted import PAUSE, CountedMount, counted
from support.planting import plant
from support.processes import in_child

pytestmark = [pytest.mark.usefixtures("data_way"), pytest.mark.alone]

PLANTED = ("file=file", "other=other", "link->file", "sub/file=in sub", "away/")


def written(path: Path) -> None:
    path.write_text("written anew")


def appended(path: Path) -> None:
    with path.open("a") as file:
        file.write("more")


OWN: dict[str, Callable[[Path], object]] = {
    "create": lambda at: written(at / "new"),
    "overwrite": lambda at: written(at / "file"),
    "append": lambda at: appended(at / "file"),
    "truncate": lambda at: os.truncate(at / "file", 2),
    "chmod": lambda at: (at / "file").chmod(0o600),
    "chmod of a directory": lambda at: (at / "sub").chmod(0o700),
    "chown": lambda at: os.chown(at / "file", 1, 2),
    "utimens": lambda at: os.utime(at / "file", (1, 2)),
    "rename": lambda at: (at / "file").rename(at / "renamed"),
    "rename over": lambda at: (at / "other").rename(at / "file"),
    "rename to elsewhere": lambda at: (at / "file").rename(at / "away/file"),
    "rename of a directory": lambda at: (at / "sub").rename(at / "away/sub"),
    "unlink": lambda at: (at / "file").unlink(),
    "link": lambda at: os.link(at / "file", at / "second"),
    "mkdir": lambda at: (at / "made").mkdir(),
    "rmdir": lambda at: (at / "away").rmdir(),
    "symlink": lambda at: (at / "made").symlink_to("file"),
    "read": lambda at: (at / "file").read_bytes(),
    "list": lambda at: os.listdir(at / "sub"),
}

NAMES = (
    *("file", "other", "link", "sub", "sub/file", "away", "away/file", "away/sub"),
    *("away/sub/file", "new", "renamed", "made", "absent", "second"),
)


def look(at: Path) -> None:
    """Every name, those that are not there too; those that are get opened."""
    for name in NAMES:
        with suppress(OSError):
            os.lstat(at / name)
    for name in NAMES:
        with suppress(OSError):
            os.close(os.open(at / name, os.O_RDONLY | os.O_NOFOLLOW))


def look_at_all(top: Path) -> None:
    for operation in OWN:
        look(top / operation)


def names_and_attributes(mount: CountedMount, operation: str) -> dict[str, int]:
    """How many are asked for, after OPERATION and a pause."""
    requests = mount.of(lambda: look(mount.top / operation), releases=False)
    return {name: requests[name] for name in ("lookup", "getattr")}


def measured(place: Path, cache: str) -> dict[str, dict[str, int]]:
    """What is asked again after each operation."""
    source = place / f"source {cache}"
    for operation in OWN:
        plant(source / operation, *PLANTED)
    with counted(place, f"{source}::/", cache=cache) as mount:
        for _ in range(2):
            in_child(look_at_all, mount.top)
            time.sleep(PAUSE)
        for operation, do in OWN.items():
            in_child(do, mount.top / operation)
        time.sleep(PAUSE)
        return {operation: names_and_attributes(mount, operation) for operation in OWN}


def test_own_changes_are_not_forgotten(tmp_path: Path) -> None:
    asked, inevitable = (measured(tmp_path, cache) for cache in ("coherent", "3600"))
    too_many = [
        f"{operation}: {name} {count}, inevitable {inevitable[operation][name]}"
        for operation, requests in asked.items()
        for name, count in requests.items()
        if count > inevitable[operation][name]
    ]
    assert not too_many, "\n".join(too_many)

"""The process in which operations happen: for bind mounts, one in a mount namespace of its own.

It is told what to do in lines of JSON and answers each with one. Its current directory is the root
of the tree under test, and it uses relative paths only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any

from aliases.private_mounts import let_go_of_copies
from conformance.case import Case
from conformance.catalogue import BEHAVIOURS
from model.execution import run_sequence, walk_tree


def bind(host: str, place: str, read_only: bool) -> None:
    subprocess.run(["mount", "--bind", host, place], check=True)
    if read_only:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)


def enter(configuration: dict[str, Any]) -> None:
    """Assemble the tree, where it is ours to assemble, and make it the current directory."""
    root = configuration["root"]
    if configuration["binds"]:
        let_go_of_copies()
    for host, guest, read_only in configuration["binds"]:
        bind(host, os.path.join(root, guest) if guest else root, read_only)
    os.chdir(root)
    if configuration["chroot"]:
        os.chroot(".")
    os.umask(0o022)


def _new_directory(name: str) -> str:
    number = 1
    while os.path.lexists(f"{name}-{number}"):
        number += 1
    os.mkdir(f"{name}-{number}")
    return f"{name}-{number}"


def run_behaviour(name: str, place: str, side: Any) -> dict[str, Any]:
    """Run one behaviour in a new directory in PLACE, or in the root where PLACE is empty."""
    case = Case(side)
    root = os.open(".", os.O_RDONLY)
    try:
        if place:
            os.chdir(place)
            os.chdir(_new_directory(name))
        BEHAVIOURS[name].run(case)
    except Exception:
        return {"failure": traceback.format_exc()}
    finally:
        os.fchdir(root)
        os.close(root)
    return {"shown": sorted(case.shown)}


HANDLERS: dict[str, Callable[..., Any]] = {
    "behaviour": run_behaviour,
    "sequence": run_sequence,
    "walk": walk_tree,
}


def main() -> None:
    enter(json.loads(sys.argv[1]))
    print("ready", flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(HANDLERS[name](*arguments)), flush=True)


if __name__ == "__main__":
    main()

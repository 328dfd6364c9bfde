#!/usr/bin/env python3
"""A stand-in for the `wasmtime` command: its own grammar for directories, the package's engine.

    wasmtime_cli.py [run] [--dir HOST[::GUEST[::IGNORED]]]... GUEST.wasm [ARG...]

As with the real one, a third field is ignored, and what follows the module is the guest's.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any

# By its place next to this file, which is not a package.
run_wasmtime: Any = importlib.import_module("run_wasmtime")


def main(arguments: list[str]) -> int:
    """Run the guest; return its exit status."""
    parser = argparse.ArgumentParser(prog="wasmtime", allow_abbrev=False)
    parser.add_argument("--dir", action="append", default=[], type=preopen)
    parser.add_argument("guest")
    parser.add_argument("guest_arguments", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments[1:] if arguments[:1] == ["run"] else arguments)
    run = [word for entry in options.dir for word in ("--dir", entry)]
    return int(run_wasmtime.main([*run, options.guest, *options.guest_arguments]))


def preopen(text: str) -> str:
    """`--dir`'s value as run_wasmtime takes it."""
    host, *rest = text.split("::")
    return f"{host}::{rest[0] if rest else host}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

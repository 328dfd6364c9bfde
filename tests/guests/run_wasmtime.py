#!/usr/bin/env python3
"""Run a WASI guest under the `wasmtime` package that is found first on sys.path.

    run_wasmtime.py [--dir H::G]... [--ro-dir H::G]... [--ro-files H::G]... GUEST.wasm [ARG...]

The guest gets this process's streams, its exit status becomes this process's, and a trap or a
module that does not load is status 134 with the reason on stderr, as the `wasmtime` command
does it.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Any, NamedTuple

# Not typed: the versions differ in their interfaces, and a checker could see one at most.
wasmtime: Any = importlib.import_module("wasmtime")

TRAPPED = 134


class Preopen(NamedTuple):
    """One directory for the guest, with what it may do there."""

    host: str
    guest: str
    mutable_names: bool = True
    writable_files: bool = True


def main(arguments: list[str]) -> int:
    """Run the guest that the command line asks for; return its exit status."""
    options = parse(arguments)
    try:
        run(options.guest, options.guest_arguments, options.preopens)
    except wasmtime.ExitTrap as exit_trap:
        return int(exit_trap.code)
    except (wasmtime.WasmtimeError, wasmtime.Trap, OSError) as error:
        print(f"run_wasmtime: {error}", file=sys.stderr)
        return TRAPPED
    return 0


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line; every kind of --dir ends up in one list, in the order given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.set_defaults(preopens=[])
    parser.add_argument("--dir", action="append", dest="preopens", type=read_write)
    parser.add_argument("--ro-dir", action="append", dest="preopens", type=read_only)
    parser.add_argument("--ro-files", action="append", dest="preopens", type=read_only_files)
    parser.add_argument("guest")
    parser.add_argument("guest_arguments", nargs=argparse.REMAINDER)
    return parser.parse_args(arguments)


def read_write(text: str) -> Preopen:
    """A preopen without restrictions."""
    host, separator, guest = text.partition("::")
    if not (host and separator and guest):
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST::GUEST")
    return Preopen(host, guest)


def read_only(text: str) -> Preopen:
    """A preopen in which neither names nor contents can change."""
    return read_write(text)._replace(mutable_names=False, writable_files=False)


def read_only_files(text: str) -> Preopen:
    """A preopen whose files are read-only but whose names are not: RUSTSEC-2026-0188's setting.

    Later versions have one permission for both, and make this plain read-only.
    """
    return read_write(text)._replace(writable_files=False)


def run(guest: str, guest_arguments: list[str], preopens: list[Preopen]) -> None:
    """Instantiate the guest and call its `_start`; an exit other than by return raises."""
    wasi = wasmtime.WasiConfig()
    wasi.argv = [guest, *guest_arguments]
    wasi.inherit_env()
    wasi.inherit_stdin()
    wasi.inherit_stdout()
    wasi.inherit_stderr()
    for preopen in preopens:
        add_preopen(wasi, preopen)

    engine = wasmtime.Engine()
    store = wasmtime.Store(engine)
    store.set_wasi(wasi)
    linker = wasmtime.Linker(engine)
    linker.define_wasi()
    instance = linker.instantiate(store, wasmtime.Module.from_file(engine, guest))
    instance.exports(store)["_start"](store)


def add_preopen(wasi: Any, preopen: Preopen) -> None:
    """Add one directory, in whichever of its two forms this version has permissions."""
    permissions: tuple[Any, ...]
    if hasattr(wasmtime, "FilePerms"):
        dirs, files = wasmtime.DirPerms, wasmtime.FilePerms
        permissions = (
            dirs.READ_WRITE if preopen.mutable_names else dirs.READ_ONLY,
            files.READ_WRITE if preopen.writable_files else files.READ_ONLY,
        )
    else:
        permissions = (preopen.mutable_names and preopen.writable_files,)
    wasi.preopen_dir(preopen.host, preopen.guest, *permissions)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

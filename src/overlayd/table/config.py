"""The TOML configuration file (SPEC.md section 9): the same keys as the options."""

import os
import re
import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from overlayd.errors import UsageError
from overlayd.table.guest_path import printable
from overlayd.table.preopen import Preopen, make_preopen


class DirEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[dir]]` table."""

    host: str
    guest: str | None = None
    ro: bool = False


class ConfigFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file as a whole; None where the command line or the default decides."""

    target: str | None = None
    alias: Literal["ro-wins", "refuse"] | None = None
    symlinks: Literal["rebase", "verbatim"] | None = None
    errors: Literal["posix", "wasi"] | None = None
    cache: str | int | float | None = None
    allow_other: bool | None = None
    log_level: Literal["debug", "info", "warning", "error"] | None = None
    log_format: Literal["text", "json"] | None = None
    dir: list[DirEntry] = []


_MOST_BYTES = 16 << 20
_FIELD = re.compile(r"`(\$[^`]*)`")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")
_KNOWN_KEYS = {ConfigFile: ConfigFile.__struct_fields__, DirEntry: DirEntry.__struct_fields__}


def read_config(path: str) -> ConfigFile:
    """Read and validate the file at *path*.

    Raises UsageError with the file, the key and the cure.
    """
    shown = printable(path)
    try:
        return msgspec.convert(tomllib.loads(_read(path)), ConfigFile)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{shown}: is not TOML: {error}") from None
    except RecursionError:
        raise UsageError(f"{shown}: is nested too deeply; no key takes more than a table") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{shown}: {_explain(str(error))}") from None
    except ValueError:  # what int() does not read
        raise UsageError(f"{shown}: holds a number of too many digits; shorten it") from None


def _read(path: str) -> str:
    shown = printable(path)
    try:
        with Path(path).open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise UsageError(f"{shown}: is no configuration file: it is larger than 16 MiB")
        return text.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{shown}: is not TOML: it is not UTF-8 text") from None
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise UsageError(f"{shown}: {reason}; name a configuration file you may read") from None


def config_preopens(config: ConfigFile, path: str) -> list[Preopen]:
    """The file's entries; a relative `host` is taken from the file's own directory."""
    base = os.path.dirname(os.path.abspath(path))
    preopens = []
    for index, entry in enumerate(config.dir):
        origin = f"{printable(path)}: dir[{index}]"
        host = os.path.join(base, entry.host) if entry.host else ""
        guest = entry.host if entry.guest is None else entry.guest
        preopens.append(make_preopen(host, guest, entry.ro, origin))
    return preopens


def _explain(words: str) -> str:
    """msgspec's sentence in the order an operator reads it: key, fault, cure."""
    where = _FIELD.search(words)
    key = where[1].removeprefix("$").removeprefix(".") if where else ""
    fault = words.split(" - at ")[0]
    unknown = _UNKNOWN.search(fault)
    if unknown is not None:
        struct = DirEntry if key.startswith("dir[") else ConfigFile
        fault = f"unknown key '{unknown[1]}'; known keys are {', '.join(_KNOWN_KEYS[struct])}"
    fault = fault.replace("Object missing required field", "missing key").replace("`", "'")
    fault = fault[:1].lower() + fault[1:]
    return f"{key}: {fault}" if key else fault

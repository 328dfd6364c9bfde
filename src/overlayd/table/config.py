"""The TOML configuration file (SPEC.md section 9): the same keys as the options."""

import errno
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from overlayd.errors import UsageError
from overlayd.table.guest_path import printable
from overlayd.table.preopen import Preopen, make_preopen


def _key(description: str) -> msgspec.Meta:
    return msgspec.Meta(description=description)


_Cache = Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["coherent", "none"]})]
_SECONDS = msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": 86400})


class DirEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One preopen: a host directory or regular file, and where the guest sees it."""

    host: Annotated[str, _key("The host path; relative to this file if it is relative.")]
    guest: Annotated[str | None, _key("The guest path. Default: host as written.")] = None
    ro: Annotated[bool, _key("Whether nothing can be changed through it.")] = False


class ConfigFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `overlayd mount`, `run`, `check` and `explain` read with --config."""

    # None: the command line or the default decides.
    target: Annotated[
        str | None, _key("The directory to mount on, absolute, where the command line names none.")
    ] = None
    alias: Annotated[
        Literal["ro-wins", "refuse"] | None,
        _key(
            "One host directory shown ro and rw: ro everywhere (ro-wins, the default), or refuse."
        ),
    ] = None
    symlinks: Annotated[
        Literal["rebase", "verbatim"] | None,
        _key("What readlink returns: rebase into the namespace (the default), or as stored."),
    ] = None
    errors: Annotated[
        Literal["posix", "wasi"] | None,
        _key("posix (the default), or wasi: EPERM for EROFS, which wasmtime turns into EIO."),
    ] = None
    cache: Annotated[
        _Cache | Annotated[int, _SECONDS] | Annotated[float, _SECONDS] | None,
        _key("What the kernel may keep: coherent (the default), none, or for so many seconds."),
    ] = None
    allow_other: Annotated[
        bool | None, _key("Let other users in, with ordinary permission checks. Default: false.")
    ] = None
    passthrough: Annotated[
        Literal["auto", "off", "require"] | None,
        _key("Data past the daemon: where it can be (auto, the default), off, or require."),
    ] = None
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        _key("The least that is logged. Default: info."),
    ] = None
    log_format: Annotated[
        Literal["text", "json"] | None, _key("How a line of the log looks. Default: text.")
    ] = None
    dir: Annotated[list[DirEntry], _key("The preopens, a [[dir]] each, in any order.")] = []


_MOST_BYTES = 16 << 20
_FIELD = re.compile(r"`\$\.?([^`]*)`")
_EXPECTED = re.compile(r"Expected `([^`]*)`, got `([^`]*)`")
_NAMED = re.compile(r"[`']([^`']*)[`']")
_KNOWN_KEYS = {ConfigFile: ConfigFile.__struct_fields__, DirEntry: DirEntry.__struct_fields__}

_WORDS = {
    "str": "a string",
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "array": "a list",
    "object": "a table",
}
"""msgspec's names for what TOML has."""

_FORMS = {
    "target": 'target = "/run/overlayd/guest"',
    "alias": 'alias = "ro-wins" or "refuse"',
    "symlinks": 'symlinks = "rebase" or "verbatim"',
    "errors": 'errors = "posix" or "wasi"',
    "cache": 'cache = "coherent", "none" or a number of seconds',
    "allow_other": "allow_other = true or false",
    "passthrough": 'passthrough = "auto", "off" or "require"',
    "log_level": 'log_level = "debug", "info", "warning" or "error"',
    "log_format": 'log_format = "text" or "json"',
    "dir": "[[dir]], in double brackets, above the keys of each entry",
    "host": 'host = "/srv/app"',
    "guest": 'guest = "/data"',
    "ro": "ro = true or false",
}
"""How each key is written: the cure for whatever is wrong with it."""


def read_config(path: str) -> ConfigFile:
    """Read and validate the file at *path*.

    Raises UsageError with the file, the key and the cure.
    """
    shown = printable(path)
    text = _read(path)
    try:
        return msgspec.convert(tomllib.loads(text), ConfigFile)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{shown}: is not TOML: {_syntax_fault(str(error))}") from None
    except RecursionError:
        raise UsageError(f"{shown}: is nested too deeply; no key takes more than a table") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{shown}: {_explain(str(error), text)}") from None
    except ValueError:  # what int() does not read
        raise UsageError(f"{shown}: holds a number of too many digits; shorten it") from None


def _read(path: str) -> str:
    shown = printable(path) or repr(path)
    try:
        if not path:  # which Path takes for the working directory
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        with Path(path).open("rb") as file:
            text = file.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise UsageError(f"{shown}: is no configuration file: it is larger than 16 MiB")
        return text.decode("utf-8-sig")  # some editors begin a file with a byte order mark
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


def _syntax_fault(words: str) -> str:
    words = words[:1].lower() + words[1:]
    return f"{words}; a string needs quotes" if words.startswith("invalid value") else words


def _explain(words: str, text: str) -> str:
    """msgspec's sentence in the order an operator reads it: key, fault, cure, line of *text*."""
    where = _FIELD.search(words)
    key = where[1] if where else ""
    name = key.rpartition(".")[2]
    fault = words.split(" - at ")[0]
    expected = _EXPECTED.match(fault)
    named = _NAMED.search(fault)
    entry = key if key.startswith("dir[") else ""
    if expected is not None:
        fault = f"expected {_in_words(expected[1])}, got {_in_words(expected[2])}"
        fault += f"; write {_FORMS.get(name) or _FORMS['dir']}"
    elif named is not None and "unknown field" in fault:
        name = named[1]
        known = _KNOWN_KEYS[DirEntry if entry else ConfigFile]
        fault = f"unknown key '{name}'; known keys are {', '.join(known)}"
    elif named is not None and "missing" in fault:
        name = ""
        fault = f"missing key '{named[1]}'; write {_FORMS[named[1]]}"
    elif named is not None:
        fault = f"'{named[1]}' is no choice; write {_FORMS[name]}"
    line = _line_of(text, entry, name)
    return (f"{key}: {fault}" if key else fault) + (f" (at line {line})" if line else "")


def _in_words(types: str) -> str:
    """*types*, as in `int | str | null`, for a person who writes TOML."""
    words = (_WORDS.get(name, f"a {name}") for name in types.split(" | ") if name != "null")
    return " or ".join(dict.fromkeys(words))


def _line_of(text: str, entry: str, name: str) -> int | None:
    """The line of *text* that sets *name* in `dir[N]` or at the top; None where it is not plain.

    TOML has many spellings, and the parser does not tell where it found a key.
    """
    place = re.escape(name)
    key = re.compile(rf"""\s*(\[+\s*{place}\s*\]|["']?{place}["']?\s*[.=])""")
    wanted = int(entry[4:].partition("]")[0]) if entry else -1
    at = -1
    for number, line in enumerate(text.splitlines(), 1):
        if re.match(r"\s*\[\[\s*dir\s*\]\]", line):
            at += 1
            if at == wanted and (not name or name.startswith("dir[")):
                return number
        if at == wanted and name and key.match(line):
            return number
    return None


def config_schema() -> dict[str, Any]:
    """The JSON schema of the file, for editors: what `read_config` takes, each key explained."""
    schema = _without_null(msgspec.json.schema(ConfigFile))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "overlayd configuration file",
        **schema,
    }


def _without_null(schema: Any) -> Any:
    """*schema* as TOML needs it, which has no null: a key that decides nothing is left out."""
    if isinstance(schema, list):
        return [_without_null(part) for part in schema if part != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    kept = {
        name: _without_null(part)
        for name, part in schema.items()
        if not (name == "default" and part is None) and not (name == "required" and not part)
    }
    alternatives = kept.get("anyOf", [])
    return kept if len(alternatives) != 1 else {**kept.pop("anyOf")[0], **kept}

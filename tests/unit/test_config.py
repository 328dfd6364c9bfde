"""The configuration file: what is accepted, and what is said about the rest (SPEC.md section 9)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import overlayd
from overlayd.errors import UsageError
from overlayd.table.config import (
    ConfigFile,
    DirEntry,
    config_preopens,
    config_schema,
    read_config,
)

WHOLE = """
target = "/run/overlayd/guest"
symlinks = "verbatim"
errors = "wasi"
cache = 1.5
allow_other = true
log_level = "debug"
log_format = "json"

[[dir]]
host = "/srv/app"
guest = "/"
ro = true

[[dir]]
host = "data"
"""


def read(tmp_path: Path, text: str) -> ConfigFile:
    path = tmp_path / "overlayd.toml"
    path.write_text(text)
    return read_config(str(path))


def complaint(tmp_path: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, text)
    words = str(caught.value)
    assert words.isprintable(), "an error is one line"
    assert words.startswith(f"{tmp_path}/overlayd.toml: "), "an error names the file"
    return words.removeprefix(f"{tmp_path}/overlayd.toml: ")


def test_every_key(tmp_path: Path) -> None:
    config = read(tmp_path, WHOLE)
    assert config.target == "/run/overlayd/guest"
    assert (config.symlinks, config.errors, config.cache) == ("verbatim", "wasi", 1.5)
    assert (config.allow_other, config.log_level, config.log_format) == (True, "debug", "json")
    assert [(d.host, d.guest, d.ro) for d in config.dir] == [
        ("/srv/app", "/", True),
        ("data", None, False),
    ]


def test_an_empty_file_decides_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "") == ConfigFile()


def test_a_byte_order_mark_is_not_part_of_the_first_key(tmp_path: Path) -> None:
    assert read(tmp_path, '\ufeffalias = "refuse"').alias == "refuse"


@pytest.mark.parametrize("cache", ['"coherent"', '"none"', "0", "2", "0.5"])
def test_spellings_of_cache(tmp_path: Path, cache: str) -> None:
    assert read(tmp_path, f"cache = {cache}").cache is not None


def test_an_unknown_key_is_named_with_the_known_ones(tmp_path: Path) -> None:
    words = complaint(tmp_path, 'tarjet = "/t"')
    assert "unknown key 'tarjet'" in words
    assert "target" in words


def test_an_unknown_key_of_an_entry(tmp_path: Path) -> None:
    words = complaint(tmp_path, '[[dir]]\nhost = "/a"\nreadonly = true')
    assert words == "dir[0]: unknown key 'readonly'; known keys are host, guest, ro (at line 3)"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("target = 3", "target"),
        ('allow_other = "yes"', "allow_other"),
        ("cache = true", "cache"),
        ('symlinks = "follow"', "symlinks"),
        ('errors = "windows"', "errors"),
        ('dir = "/a"', "dir"),
        ("[[dir]]\nhost = 3", "dir[0].host"),
        ('[[dir]]\nhost = "/a"\n[[dir]]\nhost = "/b"\nro = "yes"', "dir[1].ro"),
    ],
)
def test_a_wrong_type_or_value_names_its_key(tmp_path: Path, text: str, key: str) -> None:
    assert complaint(tmp_path, text).startswith(f"{key}: ")


def test_a_missing_field_names_its_entry(tmp_path: Path) -> None:
    words = complaint(tmp_path, '[[dir]]\nguest = "/"')
    assert words == "dir[0]: missing key 'host'; write host = \"/srv/app\" (at line 1)"


SLIPS = [
    ("target = 3", 'target: expected a string, got a number; write target = "/run/overlayd/guest"'),
    ('symlinks = "f"', 'symlinks: \'f\' is no choice; write symlinks = "rebase" or "verbatim"'),
    ('[dir]\nhost = "/a"', "dir: expected a list, got a table; write [[dir]], in double brackets"),
    ('dir = ["/a::/"]', "dir[0]: expected a table, got a string; write [[dir]]"),
    ('[[dir]]\nhost = "/a"\nro = 1', "dir[0].ro: expected true or false, got a number; write ro"),
    ("target = /run", "is not TOML: invalid value (at line 1, column 10); a string needs quotes"),
]


@pytest.mark.parametrize(("text", "words"), SLIPS)
def test_what_is_said_tells_a_stranger_what_to_write(tmp_path: Path, text: str, words: str) -> None:
    assert complaint(tmp_path, text).startswith(words)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\n\ntarget = 3", 3),
        ("[[target]]\na = 1", 1),
        ('[[dir]]\nhost = "/a"\n\n[[ dir ]]  # b\nro = true', 4),
        ('target = "x"\n[[dir]]\nhost = "/a"\n[[dir]]\nhost = "/b"\n"ro" = 1', 6),
        ('[[dir]]\nhost = "/a"\nhots.x = "/b"', 3),
    ],
)
def test_the_line_at_fault_is_named(tmp_path: Path, text: str, line: int) -> None:
    assert complaint(tmp_path, text).endswith(f" (at line {line})")


@pytest.mark.parametrize("text", ['dir = [{host = "/a", ro = 1}]', '[dirs]\n"\\u0068" = 1'])
def test_no_line_is_better_than_a_wrong_one(tmp_path: Path, text: str) -> None:
    words = complaint(tmp_path, text)
    assert "at line" not in words or words.endswith("(at line 1)")


def test_the_schema_that_is_shipped_is_that_of_the_structs() -> None:
    shipped = json.loads(Path(overlayd.__file__).with_name("config.schema.json").read_text())
    assert shipped == config_schema(), "run tools/config-schema"


def test_the_schema_explains_every_key_and_knows_no_other() -> None:
    for struct, definition in zip((ConfigFile, DirEntry), schema_definitions(), strict=True):
        assert set(definition["properties"]) == set(struct.__struct_fields__)
        assert definition["additionalProperties"] is False
        assert all("description" in key for key in definition["properties"].values())


def schema_definitions() -> list[dict[str, Any]]:
    definitions = config_schema()["$defs"]
    return [definitions["ConfigFile"], definitions["DirEntry"]]


@pytest.mark.parametrize("text", ["target = ", "[[dir]\n", 'a = "b', "a = 1\na = 2"])
def test_bad_toml(tmp_path: Path, text: str) -> None:
    assert complaint(tmp_path, text).startswith("is not TOML: ")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "overlayd.toml"
    path.write_bytes(b'target = "\xff"')
    with pytest.raises(UsageError, match="not UTF-8"):
        read_config(str(path))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or directory; name a configuration file"):
        read_config(str(tmp_path / "none.toml"))


def test_a_directory_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        read_config(str(tmp_path))


def test_a_nul_in_the_name() -> None:
    with pytest.raises(UsageError):
        read_config("a\0b")


def test_relative_hosts_are_relative_to_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read(tmp_path, '[[dir]]\nhost = "data"\n[[dir]]\nhost = "/abs"\nguest = "/g"\nro=true')
    monkeypatch.chdir("/")
    relative, absolute = config_preopens(config, os.path.join(str(tmp_path), "overlayd.toml"))
    assert relative.host == str(tmp_path / "data")
    assert relative.guest == (b"data",), "the guest path defaults to host as written"
    assert (absolute.host, absolute.guest, absolute.read_only) == ("/abs", (b"g",), True)


def test_a_relative_file_name_works_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(tmp_path, '[[dir]]\nhost = "data"')
    monkeypatch.chdir(tmp_path)
    config = read_config("overlayd.toml")
    assert config_preopens(config, "overlayd.toml")[0].host == str(tmp_path / "data")


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ('host = ""', "empty HOST"),
        ('host = "/a"\nguest = ""', "empty"),
        ('host = "/a"\nguest = "/b/../c"', "'..'"),
        ('host = "../a"', "'..'"),
    ],
)
def test_a_bad_entry_names_the_file_and_its_place(tmp_path: Path, entry: str, fault: str) -> None:
    config = read(tmp_path, f'[[dir]]\nhost = "/good"\n[[dir]]\n{entry}')
    with pytest.raises(UsageError) as caught:
        config_preopens(config, str(tmp_path / "overlayd.toml"))
    assert str(caught.value).startswith(f"{tmp_path}/overlayd.toml: dir[1]: ")
    assert fault in str(caught.value)

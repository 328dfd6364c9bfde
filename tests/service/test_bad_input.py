"""Wrong command lines, tables and files: exit 2, one line that names entry and cure, no mount."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from support.live import make_dirs, make_target
from support.mounting import is_mounted
from support.processes import attempt, command, complaint

# In the entries: {a}, {b} are directories that exist, {f} is a file, {t} the test's directory.


class Wrong(NamedTuple):
    """Arguments, and what the line must hold: the entry at fault and what would mend it."""

    name: str
    arguments: list[str]
    says: list[str]


def dirs(*entries: str) -> list[str]:
    """`--dir` for each of ENTRIES."""
    return [word for entry in entries for word in ("--dir", entry)]


TABLES = [
    Wrong("no entry", [], ["--dir HOST::GUEST"]),
    Wrong("empty", dirs(""), ["--dir", "empty HOST", "HOST[::GUEST[::OPTIONS]]"]),
    Wrong("empty host", dirs("::/x"), ["--dir ::/x", "empty HOST"]),
    Wrong("empty guest", dirs("{a}::"), ["--dir {a}::", "guest path is empty"]),
    Wrong("empty guest, options", dirs("{a}::::ro"), ["--dir {a}::::ro", "empty"]),
    Wrong("empty options", dirs("{a}::/::"), ["--dir {a}::/::", "empty option", "'ro'"]),
    Wrong("unknown option", dirs("{a}::/::rx"), ["--dir {a}::/::rx", "'rx'", "'ro'"]),
    Wrong("ro and rw", dirs("{a}::/::ro,rw"), ["--dir {a}::/::ro,rw", "both", "keep one"]),
    Wrong("trailing comma", dirs("{a}::/::ro,"), ["empty option"]),
    Wrong("too many fields", dirs("{a}::/::ro::x"), ["4 fields", "HOST[::GUEST[::OPTIONS]]"]),
    Wrong("dot dot", dirs("{a}::/x/../y"), ["--dir {a}::/x/../y", "'..'", "absolute path"]),
    Wrong("only dot dot", dirs("{a}::.."), ["'..'"]),
    Wrong("dot dot by default", dirs("{a}/../b"), ["'..'", "{a}/../b::/GUEST"]),
    Wrong("long component", dirs("{a}::/" + "x" * 256), ["longer than 255 bytes"]),
    Wrong("missing host", dirs("{t}/missing::/"), ["{t}/missing", "no such file", "existing"]),
    Wrong("host below a file", dirs("{f}/x::/"), ["{f}/x", "not a directory"]),
    Wrong("dangling link", dirs("{t}/dangling::/"), ["{t}/dangling", "no such file"]),
    Wrong("device", dirs("/dev/null::/x"), ["/dev/null", "neither a directory nor a regular file"]),
    Wrong("fifo", dirs("{t}/fifo::/x"), ["{t}/fifo", "neither a directory nor a regular file"]),
    Wrong("swapped", dirs("/guest::{a}"), ["--dir /guest::{a}", "did you mean --dir {a}::/guest"]),
    Wrong("or misspelled", dirs("/no::{a}"), ["give an existing", "did you mean"]),
    Wrong("closed, not swapped", dirs("{t}/fifo::{a}"), ["regular file; give an existing"]),
    Wrong("swapped, one colon", dirs("/guest:{a}"), ["'::'", "--dir {a}::/guest"]),
    Wrong("one colon", dirs("{a}:/guest"), ["'::'", "--dir {a}::/guest"]),
    Wrong("one colon, ro", dirs("{a}:/guest:ro"), ["'::'", "as in --dir {a}::/guest::ro"]),
    Wrong("one colon, then two", dirs("{a}:/guest::ro"), ["'::'", "as in --dir {a}::/guest::ro"]),
    Wrong("swapped, ro", dirs("/guest::{a}::ro"), ["mean --dir {a}::/guest::ro?"]),
    Wrong("twice", dirs("{a}::/x", "{b}::/x"), ["{a}::/x", "{b}::/x", "both", "another"]),
    Wrong("twice, spelled apart", dirs("{a}::/x", "{b}::x//./"), ["{a}::/x", "{b}::x//./"]),
    Wrong("same entry twice", dirs("{a}::/", "{a}::/"), ["both are attached at /"]),
    Wrong("through a file", dirs("{a}::/", "{b}::/file/x"), ["{b}::/file/x", "'file'", "{a}/file"]),
    Wrong("through a link", dirs("{a}::/", "{b}::/link/x"), ["'link'", "symbolic link"]),
    Wrong("file at the root", dirs("{f}::/"), ["{f}", "regular file", "::/NAME"]),
    Wrong("below a file", dirs("{f}::/x", "{b}::/x/y"), ["{b}::/x/y", "{f}", "choose another"]),
    Wrong("no name of a file", ["--config", ""], ["'': no such file", "configuration file"]),
    Wrong("last of many", dirs("{a}::/", "{b}::/b", "{t}/no::/c"), ["--dir {t}/no::/c"]),
]

OPTIONS = [
    Wrong("unknown option", ["--no-such-option", *dirs("{a}::/")], ["--no-such-option", "--help"]),
    Wrong(
        "misspelled",
        ["--dirs", "{a}::/"],
        ["'--dirs' (did you mean --dir", "?); see overlayd mount"],
    ),
    Wrong("symlinks", ["--symlinks", "both", *dirs("{a}::/")], ["both", "rebase", "verbatim"]),
    Wrong("errors", ["--errors", "win", *dirs("{a}::/")], ["win", "posix", "wasi"]),
    Wrong("cache", ["--cache", "soon", *dirs("{a}::/")], ["--cache soon", "coherent", "none"]),
    Wrong("negative cache", ["--cache", "-1", *dirs("{a}::/")], ["--cache -1", "seconds"]),
    Wrong("endless cache", ["--cache", "inf", *dirs("{a}::/")], ["--cache inf", "86400"]),
    Wrong("no number", ["--cache", "nan", *dirs("{a}::/")], ["--cache nan"]),
    Wrong("level", ["--log-level", "loud", *dirs("{a}::/")], ["loud", "debug"]),
    Wrong("-o unknown", ["-o", "ro,colour", *dirs("{a}::/")], ["-o colour", "unknown", "noatime"]),
    Wrong("-o no value", ["-o", "fsname", *dirs("{a}::/")], ["fsname", "fsname=VALUE"]),
    Wrong("-o needless value", ["-o", "ro=1", *dirs("{a}::/")], ["ro=1"]),
]


def prepared(place: Path) -> dict[str, str]:
    """What the entries refer to."""
    a, b = make_dirs(place, "a", "b")
    (a / "link").symlink_to(b)
    (place / "dangling").symlink_to(place / "nowhere")
    os.mkfifo(place / "fifo")
    return {"a": str(a), "b": str(b), "f": str(a / "file"), "t": str(place)}


@pytest.mark.parametrize("wrong", TABLES + OPTIONS, ids=lambda wrong: wrong.name)
def test_mount_says_what_is_wrong(tmp_path: Path, wrong: Wrong) -> None:
    names, target = prepared(tmp_path), make_target(tmp_path)
    arguments = [word.format_map(names) for word in wrong.arguments]
    line = complaint(attempt("mount", *arguments, str(target)), 2)
    for words in wrong.says:
        assert words.format_map(names) in line
    assert not is_mounted(target)


@pytest.mark.parametrize("name", ["check", "run", "explain"])
def test_every_command_refuses_a_wrong_table(tmp_path: Path, name: str) -> None:
    rest = {"check": [], "run": ["--", "touch", str(tmp_path / "ran")], "explain": ["/"]}[name]
    line = complaint(attempt(name, *dirs(f"{tmp_path}/missing::/"), *rest), 2)
    assert f"{tmp_path}/missing" in line
    line = complaint(attempt(name, *dirs(f"{tmp_path}::/"), "--cache", "soon", *rest), 2)
    assert "--cache soon" in line
    assert not (tmp_path / "ran").exists()


FILES = {
    "not TOML": ("target = \n", ["is not TOML", "line 1"]),
    "not text": (b"\xff\xfe\x00", ["is not TOML", "UTF-8"]),
    "unknown key": ('colour = "red"\n', ["unknown key 'colour'", "known keys are target"]),
    "unknown key in dir": ('[[dir]]\nhost = "a"\nrx = true\n', ["dir[0]", "'rx'", "host, guest"]),
    "wrong type": ("target = 7\n", ["target", "expected"]),
    "wrong type in dir": ('[[dir]]\nhost = "a"\nro = "yes"\n', ["dir[0].ro", "expected"]),
    "dir is no list": ('dir = "a::/"\n', ["dir", "expected"]),
    "missing host": ('[[dir]]\nguest = "/"\n', ["dir[0]", "missing key 'host'"]),
    "empty host": ('[[dir]]\nhost = ""\nguest = "/"\n', ["dir[0]", "empty HOST"]),
    "bad guest": ('[[dir]]\nhost = "a"\nguest = "/.."\n', ["dir[0]", "'..'"]),
    "bad choice": ('symlinks = "both"\n', ["symlinks", "both"]),
    "bad cache": ('cache = "soon"\n[[dir]]\nhost = "a"\nguest = "/"\n', ["cache", "coherent"]),
    "cache is a truth": ("cache = true\n", ["cache", "expected"]),
    "missing source": ('[[dir]]\nhost = "no"\nguest = "/"\n', ["dir[0]", "/no"]),
    "guest is on the host": (
        '[[dir]]\nhost = "/no"\nguest = "/tmp"\n',
        ["/no: no such", "regular file"],
    ),
    "colon": ('[[dir]]\nhost = "a:b"\nguest = "/tmp"\n', ["/a:b: no such", "regular file"]),
    "twice": (
        '[[dir]]\nhost = "a"\nguest = "/x"\n[[dir]]\nhost = "b"\nguest = "x/"\n',
        ["dir[0]", "dir[1]", "/x"],
    ),
}


@pytest.mark.parametrize(("content", "says"), FILES.values(), ids=FILES.keys())
def test_a_wrong_configuration_file(tmp_path: Path, content: str | bytes, says: list[str]) -> None:
    prepared(tmp_path)
    target, config = make_target(tmp_path), tmp_path / "overlayd.toml"
    config.write_bytes(content if isinstance(content, bytes) else content.encode())
    line = complaint(attempt("mount", "--config", str(config), str(target)), 2)
    assert str(config) in line
    for words in says:
        assert words in line
    assert "--dir" not in line
    assert not is_mounted(target)


def test_a_configuration_file_without_entries(tmp_path: Path) -> None:
    config = tmp_path / "overlayd.toml"
    config.write_text('symlinks = "rebase"\n')
    assert "[[dir]]" in complaint(attempt("check", "--config", str(config)), 2)


@pytest.mark.parametrize("name", ["missing.toml", "a"])
def test_a_configuration_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    prepared(tmp_path)
    line = complaint(attempt("check", "--config", str(tmp_path / name)), 2)
    assert str(tmp_path / name) in line and "may read" in line


def test_a_configuration_file_without_end(tmp_path: Path) -> None:
    line = complaint(attempt("check", "--config", "/dev/zero", seconds=10), 2)
    assert line.startswith("/dev/zero: ") and "larger than 16 MiB" in line


def test_a_configuration_from_a_pipe(tmp_path: Path) -> None:
    prepared(tmp_path)
    text = f"[[dir]]\nhost = '{tmp_path}/a'\nguest = '/'\n"
    words = command("check", "--config", "/dev/stdin")
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{tmp_path}/a" in done.stdout


def test_an_entry_of_the_file_and_one_of_the_command_line_conflict(tmp_path: Path) -> None:
    prepared(tmp_path)
    config = tmp_path / "overlayd.toml"
    config.write_text('[[dir]]\nhost = "a"\nguest = "/x"\n')
    line = complaint(attempt("check", "--config", str(config), *dirs(f"{tmp_path}/b::/x")), 2)
    assert f"{config}: dir[0]" in line and f"--dir {tmp_path}/b::/x" in line


EMPTY_OR_NO_NUMBER = {
    "umount": (["umount", ""], "TARGET is empty"),
    "health": (["health", ""], "TARGET is empty"),
    "explain": (["explain", "--dir", "/::/", ""], "'': the guest path is empty"),
    "run": (["run", "--dir", "/::/", "--", ""], "'': command not found"),
    "no seconds": (
        ["health", "--timeout", "", "/"],
        "--timeout '': give a number of seconds above 0",
    ),
    "no number": (["status", "--timeout", "5s"], "--timeout 5s: give a number of seconds above 0"),
}


@pytest.mark.parametrize(
    ("arguments", "says"), EMPTY_OR_NO_NUMBER.values(), ids=EMPTY_OR_NO_NUMBER.keys()
)
def test_what_is_empty_or_no_number_is_named(arguments: list[str], says: str) -> None:
    line = complaint(attempt(*arguments), 127 if arguments[0] == "run" else 2)
    assert line.startswith(says)


def test_no_target_and_no_command(tmp_path: Path) -> None:
    names = prepared(tmp_path)
    assert "target" in complaint(attempt("mount", *dirs(f"{names['a']}::/")), 2)
    assert "TARGET" in complaint(attempt("umount"), 2)
    assert "COMMAND" in complaint(attempt("run", *dirs(f"{names['a']}::/")), 2)
    assert "GUEST-PATH" in complaint(attempt("explain", *dirs(f"{names['a']}::/")), 2)
    assert "no-such-command" in complaint(attempt("no-such-command"), 2)
    complaint(attempt("mount", *dirs(f"{names['a']}::/"), "one", "two"), 2)
    assert "--dir" in complaint(attempt("check", "--dir"), 2)


def test_bytes_and_line_breaks_stay_one_printable_line(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff\n\x1b[31mred")
    line = complaint(attempt("check", *dirs(f"{tmp_path}/{name}::/")), 2)
    assert "a\\xff\\n\\x1b[31mred" in line
    complaint(attempt("umount", str(tmp_path / name)), 1)


def test_help_goes_to_stdout_and_is_no_error() -> None:
    for words in ([], ["mount"], ["umount"], ["run"], ["check"], ["explain"]):
        done = attempt(*words, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert "Usage: overlayd" in done.stdout
    assert attempt("--version").stdout.startswith("overlayd")

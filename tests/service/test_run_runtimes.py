"""`overlayd run` and WASI runtimes: their own directory options, with a real guest and without.

The guest runs under the `wasmtime` package, behind a command `wasmtime` that takes the real one's
options for directories; what the others are run as is told by stand-ins that print it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import toolchain
from support.live import make_dirs
from support.processes import attempt, complaint
from support.runtimes import WASMTIME_NEWEST, probe_arguments


@pytest.fixture(scope="session")
def guest() -> str:
    return str(toolchain.guest("probe"))


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of commands that comes first in PATH; `wasmtime` runs guests."""
    place = tmp_path / "bin"
    place.mkdir()
    package = WASMTIME_NEWEST.environment()["PYTHONPATH"]
    front_end = toolchain.GUEST_SOURCES / "wasmtime_cli.py"
    add_tool(place, "wasmtime", f'PYTHONPATH={package} exec {sys.executable} {front_end} "$@"')
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return place


def add_tool(place: Path, name: str, line: str) -> Path:
    tool = place / name
    tool.write_text(f"#!/bin/sh\n{line}\n")
    tool.chmod(0o755)
    return tool


@pytest.fixture
def dirs(tmp_path: Path) -> tuple[Path, Path]:
    app, lib = make_dirs(tmp_path, "app", "lib")
    (app / "lib").mkdir()
    (app / "lib" / "masked").write_text("the app's own")
    return app, lib


def overlayd_run(*words: str) -> subprocess.CompletedProcess[str]:
    """`overlayd run`, which must leave no mount and no directory."""
    done = attempt("run", *words, seconds=60)
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []
    return done


def ask(*commands: str) -> list[str]:
    return probe_arguments(commands)


ONE_TREE = ("list /", "read /lib/file", "read /lib/masked", "open r / rd", "read @r:lib/file")


@pytest.mark.usefixtures("data_way")
def test_a_guest_sees_one_tree(tools: Path, dirs: tuple[Path, Path], guest: str) -> None:
    """What would be two trees under wasmtime alone, by the very same options."""
    app, lib = dirs
    options = ["--dir", f"{app}::/", f"--dir={lib}::/lib"]
    done = overlayd_run("--", "wasmtime", "run", *options, guest, *ask(*ONE_TREE))
    assert (done.returncode, done.stderr) == (0, "")
    listing, *answers = done.stdout.splitlines()
    assert sorted(listing.split()) == ["..:dir", ".:dir", "file:file", "lib:dir", "ok"]
    assert answers == ["ok lib", "error ENOENT", "ok", "ok lib"]


def test_the_same_without_overlayd_is_split(
    tools: Path, dirs: tuple[Path, Path], guest: str
) -> None:
    """The stand-in is no overlayd of its own."""
    app, lib = dirs
    words = ["wasmtime", "run", "--dir", f"{app}::/", "--dir", f"{lib}::/lib", guest]
    asked = ask("open r / rd", "read @r:lib/file", "read @r:lib/masked")
    done = subprocess.run([*words, *asked], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == ["ok", "error ENOENT", "ok the%20app's%20own"]


@pytest.mark.usefixtures("data_way")
def test_overlayds_own_entries_and_the_commands_add_up(
    tools: Path, dirs: tuple[Path, Path], guest: str
) -> None:
    app, lib = dirs
    words = ["--dir", f"{lib}::/lib::ro", "--", "wasmtime", "--dir", f"{app}::/", guest]
    done = overlayd_run(*words, *ask("read /file", "read /lib/file", "write /lib/new x"))
    # EPERM and not EIO: errors are spelled for wasmtime.
    assert (done.stdout.split("\n")[:3], done.stderr) == (["ok app", "ok lib", "error EPERM"], "")
    assert not (lib / "new").exists()


def test_a_command_without_directories_is_given_the_one(
    tools: Path, dirs: tuple[Path, Path], guest: str
) -> None:
    app, _ = dirs
    done = overlayd_run("--dir", f"{app}::/", "--", "wasmtime", guest, *ask("read /file"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok app\n", "")


@pytest.mark.usefixtures("data_way")
def test_ro_for_wasmtime_is_honoured_and_said(
    tools: Path, dirs: tuple[Path, Path], guest: str
) -> None:
    app, lib = dirs
    options = ["--dir", f"{app}::/", "--dir", f"{lib}::/lib::ro"]
    done = overlayd_run("--", "wasmtime", *options, guest, *ask("write /lib/file x", "write /a x"))
    assert done.stdout.splitlines() == ["error EPERM", "ok"]
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"overlayd: warning: wasmtime --dir {lib}::/lib::ro: ")
    assert (lib / "file").read_text() == "lib"


@pytest.mark.parametrize("kept", ["by --keep-dirs", "by {}"])
def test_ro_that_wasmtime_ignores_is_warned_of(
    tools: Path, dirs: tuple[Path, Path], guest: str, kept: str
) -> None:
    """It writes, as wasmtime lets it: the warning is all that tells."""
    app, lib = dirs
    flag = ["--keep-dirs"] if kept == "by --keep-dirs" else []
    options = ["--dir", f"{app}::/" if flag else "{}::/", "--dir", f"{lib}::/lib::ro"]
    words = [*flag, "--dir", f"{app}::/", "--", "wasmtime", *options, guest]
    done = overlayd_run(*words, *ask("write /lib/file x"))
    assert done.stdout == "ok\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"overlayd: warning: wasmtime --dir {lib}::/lib::ro: wasmtime ignores")
    assert (lib / "file").read_text() == "x"


def test_the_placeholder_still_says_where_the_target_goes(
    tools: Path, dirs: tuple[Path, Path], guest: str
) -> None:
    app, _ = dirs
    words = ["--dir", f"{app}::/", "--", "wasmtime", "--dir", "{}::/inner", guest]
    done = overlayd_run(*words, *ask("read /inner/file"))
    assert (done.stdout, done.stderr) == ("ok app\n", "")


def test_the_guests_exit_status(tools: Path, dirs: tuple[Path, Path], guest: str) -> None:
    done = overlayd_run("--", "wasmtime", "--dir", f"{dirs[0]}::/", guest, "no-such-command")
    assert done.returncode == 2


SAID = 'printf "%s\\n" "$0" "$@"; ls "$OVERLAYD_TARGET"'


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("wasmer run --volume APP:/ app.wasm -- x", "run --volume T:/ app.wasm -- x"),
        ("wasmer run app.wasm --mapdir /:APP", "run app.wasm --mapdir /:T"),
        ("wasmedge --dir /:APP app.wasm --dir x", "--dir /:T app.wasm --dir x"),
        ("wazero run -mount=APP:/ app.wasm", "run -mount=T:/ app.wasm"),
        ("iwasm --map-dir=/::APP app.wasm", "--map-dir=/::T app.wasm"),
    ],
)
def test_what_other_runtimes_are_run_as(
    tools: Path, dirs: tuple[Path, Path], words: str, expected: str
) -> None:
    app, _ = dirs
    name, *arguments = words.replace("APP", str(app)).split()
    tool = add_tool(tools, name, SAID + '; echo "$OVERLAYD_TARGET"')
    done = overlayd_run("--verbose", "--", name, *arguments)
    lines = done.stdout.splitlines()
    assert lines[0] == str(tool)
    *given, first, second, target = lines[1:]
    assert (first, second) == ("file", "lib")
    assert " ".join(given) == expected.replace("T:", f"{target}:").replace(":T", f":{target}")
    assert done.stderr == f"overlayd: running {name} {' '.join(given)}\n"


@pytest.mark.parametrize(
    ("words", "read_only"),
    [
        ("wasmedge --dir /:APP:readonly app.wasm", True),
        ("wasmedge --dir /:APP app.wasm", False),
        ("wazero run -mount=APP:/:ro app.wasm", True),
        ("wazero run -mount=APP:/ app.wasm", False),
    ],
)
def test_a_runtimes_own_read_only_holds(
    tools: Path, dirs: tuple[Path, Path], words: str, read_only: bool
) -> None:
    app, _ = dirs
    name, *arguments = words.replace("APP", str(app)).split()
    add_tool(tools, name, 'echo changed > "$OVERLAYD_TARGET/file"')
    done = overlayd_run("--", name, *arguments)
    assert (app / "file").read_text() == ("app" if read_only else "changed\n")
    assert ("Read-only" in done.stderr) is read_only


def test_kept_directories_are_the_commands(tools: Path, dirs: tuple[Path, Path]) -> None:
    app, lib = dirs
    add_tool(tools, "wasmedge", 'echo "$@"')
    words = ["--keep-dirs", "--dir", f"{app}::/", "--", "wasmedge", "--dir", f"/:{lib}", "x"]
    done = overlayd_run(*words)
    assert (done.stdout, done.stderr) == (f"--dir /:{lib} x\n", "")


def test_other_commands_keep_their_words(tools: Path, dirs: tuple[Path, Path]) -> None:
    app, _ = dirs
    done = overlayd_run("--dir", f"{app}::/", "--", "echo", "--dir", "a::/", "{")
    assert done.stdout == "--dir a::/ {\n"


def test_options_after_the_first_word_are_the_commands(dirs: tuple[Path, Path]) -> None:
    """As with env(1) and nice(1), `--` or not."""
    app, _ = dirs
    done = overlayd_run("--dir", f"{app}::/", "echo", "--dir", "a::/", "--help")
    assert (done.returncode, done.stdout) == (0, "--dir a::/ --help\n")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--dir", "APP::/"], "both are attached at /"),
        (["--dir", "/nowhere::/x"], "wasmtime --dir /nowhere::/x"),
        (["--dir", "APP::/x::no"], "unknown option 'no'"),
        (["--new", "x", "--dir", "APP::/x"], "--keep-dirs"),
    ],
)
def test_a_wrong_table_runs_nothing(
    tools: Path, dirs: tuple[Path, Path], options: list[str], words: str
) -> None:
    app, _ = dirs
    add_tool(tools, "wasmtime", f"touch {tools}/ran")
    given = [option.replace("APP", str(app)) for option in options]
    done = overlayd_run("--dir", f"{app}::/", "--", "wasmtime", *given, "app.wasm")
    assert words in complaint(done, 2)
    assert not (tools / "ran").exists()


def test_no_directory_anywhere(tools: Path) -> None:
    assert "no preopens" in complaint(overlayd_run("--", "wasmtime", "app.wasm"), 2)

"""Whatever is typed or written into a file: one line and a status, never a traceback."""

from __future__ import annotations

import json
import os
import string
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from overlayd.cli import commands as entry
from overlayd.errors import UsageError
from overlayd.table.config import ConfigFile, config_preopens, read_config
from overlayd.table.guest_path import PATH_MAX, parse_guest_path, show
from overlayd.table.preopen import parse_preopen
from support.processes import attempt, command

# tmp_path and capsys may be shared by the examples: each writes its file and reads its output anew.
relaxed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

argument_text = st.binary(max_size=40).map(os.fsdecode)
"""What argv can hold, and NUL besides."""
pieces = st.sampled_from(
    ["::", ":", "/", "..", ".", "ro", "rw", ",", "\n", "\0", "\x1b[2J", "\udcff", "a", "lib", "é"]
)
entries = st.one_of(
    argument_text, st.lists(pieces, max_size=12).map("".join), st.text(alphabet="a/.:", max_size=30)
)


def assert_names_the_entry(words: str) -> None:
    assert words.startswith("--dir ")
    assert words.isprintable()


@given(entries)
@settings(max_examples=500)
def test_an_entry_is_read_and_written_alike_or_refused_by_name(text: str) -> None:
    try:
        preopen = parse_preopen(text)
    except UsageError as error:
        assert_names_the_entry(str(error))
        return
    assert str(preopen).isprintable()
    # What is escaped for people is not written alike, and a colon at a field's end runs into `::`.
    fields = (preopen.host, show(preopen.guest))
    assume(text.isprintable() and not any(field.endswith(":") for field in fields))
    again = parse_preopen(str(preopen))
    assert (again.host, again.guest) == (preopen.host, preopen.guest)
    assert again.read_only == preopen.read_only


@pytest.mark.parametrize("text", ["\ud800::/a", "a::/\ud800", "\ud800"])
def test_what_no_argument_can_hold_is_refused_or_shown_escaped(text: str) -> None:
    try:
        shown = str(parse_preopen(text))
    except UsageError as error:
        shown = str(error)
    assert shown.isprintable()


@pytest.mark.parametrize("text", ["/a" * 100_000, "a/" * 100_000, "/".join(["x" * 255] * 16)])
def test_a_path_that_no_system_call_takes_is_refused_at_once(text: str) -> None:
    with pytest.raises(UsageError, match="longer than 4095 bytes"):
        parse_preopen(f"/tmp::{text}")


def test_the_longest_path_is_taken() -> None:
    assert len(parse_guest_path("/" + "/".join("a" * (PATH_MAX // 2)))) == 2047


# -- the configuration file -----------------------------------------------------------------------

KNOWN = ConfigFile.__struct_fields__
VALID = b"""target = "/t"
alias = "refuse"
symlinks = "verbatim"
cache = 2.5
allow_other = true
[[dir]]
host = "/srv"
guest = "/"
ro = true
[[dir]]
host = "b"
"""

keys = st.sampled_from([*KNOWN, "host", "guest", "ro", "nobody", '"\\u0000\\n`"', '"$.a"'])
strings = st.text(alphabet=string.ascii_letters + "/.:é \t", max_size=12).map(json.dumps)
numbers = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from([1, 5000]).flatmap(lambda n: st.sampled_from(["9" * n, "0x" + "f" * n])),
    st.sampled_from(["1e999", "-nan", "1979-05-27", "07:32:00"]),
)
scalars = st.one_of(strings, numbers, st.sampled_from(["true", "false", '"ro-wins"', '"\\u0000"']))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]"),
        st.lists(st.tuples(keys, inner), max_size=3, unique_by=lambda pair: pair[0]).map(
            lambda pairs: "{" + ",".join(f"{key}={value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=6,
)
lines = st.one_of(
    st.tuples(keys, values).map(" = ".join),
    st.sampled_from(["[[dir]]", "[dir]", "[[dir.host]]", "[target]", "dir = []", 'host = "/"']),
)
documents = st.lists(lines, max_size=8).map(lambda parts: "\n".join(parts).encode())


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """The valid document with some of its bytes replaced, removed or repeated."""
    text = bytearray(VALID)
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(text)))
        end = min(len(text), begin + draw(st.integers(0, 8)))
        text[begin:end] = draw(
            st.one_of(st.binary(max_size=4), st.just(bytes(text[begin:end]) * 2))
        )
    return bytes(text)


def check_config(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    words = f"{path}: dir["
    try:
        config = read_config(str(path))
        assert isinstance(config, ConfigFile)
        for preopen in config_preopens(config, str(path)):
            words = preopen.origin
    except UsageError as error:
        words = str(error)
    assert words.startswith(f"{path}: ")


@given(st.one_of(documents, mutations(), st.binary(max_size=60)))
@settings(relaxed, max_examples=500)
def test_a_file_is_a_configuration_or_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    check_config(tmp_path / "file.toml", content)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("cache = " + "9" * 5000, "too many digits"),
        ("cache = 0x" + "f" * 5000, "cache: give coherent"),
        ("cache = " + "[" * 5000, "nested too deeply"),
        ("cache = " + "{a=" * 5000, "nested too deeply"),
        (".".join(["a"] * 5000) + " = 1", "unknown key 'a'"),
        ('"x\\ny" = 1', "unknown key 'x\\ny'"),
    ],
)
def test_what_python_itself_stumbles_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, words: str
) -> None:
    (tmp_path / "file.toml").write_text(content)
    status, _, said = run_here(capsys, ["check", "--config", str(tmp_path / "file.toml")])
    assert status == 2
    assert words in said


# -- the command line -----------------------------------------------------------------------------

options = st.sampled_from(
    ["--dir", "--config", "--alias", "--cache", "--json", "--strict", "--symlinks", "--errors"]
    + ["--dir=.", "--dir=.::/a::ro", "--dir=.::/a/b", "--bogus", "--", "-h", "--alias=refuse"]
    + ["--cache=nan", "--cache=1e400", "--config=/dev/null", "--config=/proc/self/mem"]
)
command_lines = st.tuples(
    st.sampled_from(["check", "explain"]),
    st.lists(st.one_of(options, options, entries.map(lambda text: f"--dir={text}"), entries)),
).map(lambda parts: [parts[0], *parts[1]])


def run_here(capsys: pytest.CaptureFixture[str], arguments: Sequence[str]) -> tuple[int, str, str]:
    """The command in this process: its status, output and complaint, which is one line or none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["overlayd", *arguments])
        status = entry.run()
    out, err = capsys.readouterr()
    assert status in (0, 1, 2), (status, err)
    if status == 2 or err:
        assert err.startswith("overlayd: error: "), err
        assert err.count("\n") == 1
        assert err[:-1].isprintable()
    return status, out, err


@given(command_lines)
@settings(relaxed, max_examples=400)
def test_a_command_line_ends_with_a_status_and_at_most_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    status, out, _ = run_here(capsys, arguments)
    is_help = "-h" in arguments
    if status == 0 and "--json" in arguments and not is_help and "--" not in arguments:
        json.loads(out)


@given(guests=st.lists(argument_text, min_size=1, max_size=4), strict=st.booleans())
@settings(relaxed, max_examples=100)
def test_check_says_valid_json_whatever_the_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], guests: list[str], strict: bool
) -> None:
    host = tmp_path / os.fsdecode(b"h\xff\n\x1b")
    host.mkdir(exist_ok=True)
    words = [f"--dir={host}::/{guest}" for guest in guests]
    status, out, _ = run_here(capsys, ["check", "--json", *words, *["--strict"] * strict])
    if status != 2:
        report = json.loads(out)
        assert len(report["preopens"]) == len(guests)
        out.encode()  # no lone surrogate


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", b"--dir=\xff\xfe\n::/\x1b[2J"],
        ["check", b"--dir=.::/\xff\n\x1b::ro", "--json"],
        ["explain", b"--dir=.::/", b"/\xff\n"],
        [b"\xff\n"],
        ["check", b"--\xff"],
        ["check", "--dir", ".::/" + "a/" * 60_000],
        ["mount", "--dir", ".::/", "-o", b"\xff\n=", "."],
        ["umount", b"\xff\n"],
    ],
)
def test_a_real_command_line_of_bytes(arguments: list[str | bytes]) -> None:
    done = attempt(*map(os.fsdecode, arguments))
    assert done.returncode in (0, 1, 2)
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == (done.returncode != 0)


def test_a_full_disk_below_the_output_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = attempt_into(full.fileno())
    assert done == (
        1,
        "overlayd: error: the output cannot be written: no space left on device;"
        " send it to another place\n",
    )


def attempt_into(out: int) -> tuple[int, str]:
    """The status and complaint of a `check` that writes to descriptor OUT."""
    done = subprocess.run(
        command("check", "--dir", ".::/"),
        stdout=out,
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr

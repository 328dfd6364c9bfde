"""The table of runtimes: which options are lifted out of a command, and what takes their place."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from overlayd.errors import UsageError
from overlayd.table.runtimes import RUNTIMES, GuestCommand, read_command, runtime_of

PAGE = Path(__file__).parents[2] / "docs/run.md"


def read(command: str) -> GuestCommand:
    guest = read_command(tuple(shlex.split(command)))
    assert guest is not None
    return guest


def rewritten(command: str) -> str:
    """COMMAND as run with the target /T."""
    return shlex.join(read(command).with_target("/T"))


def entries(command: str) -> list[str]:
    """What COMMAND adds to the table."""
    return [str(preopen) for preopen in read(command).preopens()]


# COMMAND; what it adds to the table; what it is run as.
CASES = [
    # wasmtime
    (
        "wasmtime run --dir a::/ --dir b::/lib app.wasm",
        ["a::/::rw", "b::/lib::rw"],
        "wasmtime run --dir /T::/ app.wasm",
    ),
    ("wasmtime --dir=a::/ app.wasm x", ["a::/::rw"], "wasmtime --dir /T::/ app.wasm x"),
    ("wasmtime --dir . app.wasm", [".::/::rw"], "wasmtime --dir /T::/ app.wasm"),
    ("wasmtime --dir /srv app.wasm", ["/srv::/srv::rw"], "wasmtime --dir /T::/ app.wasm"),
    (
        "wasmtime serve --addr 127.0.0.1:80 --dir a::/ app.wasm",
        ["a::/::rw"],
        "wasmtime serve --addr 127.0.0.1:80 --dir /T::/ app.wasm",
    ),
    (
        "wasmtime -S cli -Wfuel=9 --env A=1 --dir a::/ --invoke f app.wasm --dir guests::/own",
        ["a::/::rw"],
        "wasmtime -S cli -Wfuel=9 --env A=1 --dir /T::/ --invoke f app.wasm --dir guests::/own",
    ),
    (
        "wasmtime run --mapdir /::a --mapdir /lib::b app.wasm",
        ["a::/::rw", "b::/lib::rw"],
        "wasmtime run --mapdir /::/T app.wasm",
    ),
    (
        "wasmtime run --mapdir /::a --dir b app.wasm",
        ["a::/::rw", "b::/b::rw"],
        "wasmtime run --mapdir /::/T app.wasm",
    ),
    ("wasmtime run --dir a::/ -- app.wasm", ["a::/::rw"], "wasmtime run --dir /T::/ -- app.wasm"),
    ("wasmtime --dir a::/::ro app.wasm", ["a::/::ro"], "wasmtime --dir /T::/ app.wasm"),
    ("wasmtime run app.wasm --dir a::/", [], "wasmtime run --dir /T::/ app.wasm --dir a::/"),
    ("wasmtime app.wasm", [], "wasmtime --dir /T::/ app.wasm"),
    ("wasmtime -- app.wasm", [], "wasmtime --dir /T::/ -- app.wasm"),
    ("/opt/bin/wasmtime --dir a::/ x", ["a::/::rw"], "/opt/bin/wasmtime --dir /T::/ x"),
    ("wasmtime --version", [], "wasmtime --version"),
    ("wasmtime --dir a::/ {}/app.wasm", ["a::/::rw"], "wasmtime --dir /T::/ /T/app.wasm"),
    # wasmer
    (
        "wasmer run --volume a:/ --volume b:/lib app.wasm",
        ["a::/::rw", "b::/lib::rw"],
        "wasmer run --volume /T:/ app.wasm",
    ),
    (
        "wasmer run app.wasm --mapdir /:a --mapdir=/lib::b -- --dir guests",
        ["a::/::rw", "b::/lib::rw"],
        "wasmer run app.wasm --mapdir /:/T -- --dir guests",
    ),
    ("wasmer app.wasm --dir .", [".::/::rw"], "wasmer app.wasm --mapdir /:/T"),
    (
        "wasmer run --dir b app --volume a:/",
        ["b::/b::rw", "a::/::rw"],
        "wasmer run --volume /T:/ app",
    ),
    ("wasmer run python/python", [], "wasmer run --volume /T:/ python/python"),
    # WasmEdge
    (
        "wasmedge --dir /:a --dir /lib:b:readonly app.wasm --dir guests",
        ["a::/::rw", "b::/lib::ro"],
        "wasmedge --dir /:/T app.wasm --dir guests",
    ),
    (
        "wasmedge run --reactor --dir=/:a:readwrite app.wasm f",
        ["a::/::rw"],
        "wasmedge run --reactor --dir /:/T app.wasm f",
    ),
    ("wasmedge --dir . app.wasm", [".::/::rw"], "wasmedge --dir /:/T app.wasm"),
    # wazero
    (
        "wazero run -mount=a:/ --mount=b:/lib:ro app.wasm -mount=guests",
        ["a::/::rw", "b::/lib::ro"],
        "wazero run -mount=/T:/ app.wasm -mount=guests",
    ),
    (
        "wazero run -mount a:/ -env X=1 -interpreter app.wasm",
        ["a::/::rw"],
        "wazero run -mount=/T:/ -env X=1 -interpreter app.wasm",
    ),
    ("wazero run -mount .:ro app.wasm", [".::/::ro"], "wazero run -mount=/T:/ app.wasm"),
    ("wazero run -mount=c:d:/x app.wasm", ["c:d::/x::rw"], "wazero run -mount=/T:/ app.wasm"),
    # iwasm
    (
        "iwasm --map-dir=/::a --map-dir=/lib::b -f main app.wasm --dir=guests",
        ["a::/::rw", "b::/lib::rw"],
        "iwasm --map-dir=/::/T -f main app.wasm --dir=guests",
    ),
    (
        "iwasm --heap-size=9 --dir=. app.wasm",
        [".::/::rw"],
        "iwasm --heap-size=9 --map-dir=/::/T app.wasm",
    ),
    ("iwasm --interp app.wasm", [], "iwasm --map-dir=/::/T --interp app.wasm"),
]


@pytest.mark.parametrize(("command", "added", "run_as"), CASES, ids=[case[0] for case in CASES])
def test_what_is_lifted_and_what_takes_its_place(
    command: str, added: list[str], run_as: str
) -> None:
    assert (entries(command), rewritten(command)) == (added, run_as)


def test_every_runtime_has_cases() -> None:
    """With the option as it stands in the table, so that a change of one is a change of both."""
    for name, runtime in RUNTIMES.items():
        commands = [command for command, _, _ in CASES if runtime_of((command.split()[0],)) == name]
        for spelling in runtime.spellings:
            assert any(spelling.option in command for command in commands), (name, spelling.option)


def test_the_page_has_the_table() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(rows) == len(RUNTIMES)
    for row, (name, runtime) in zip(rows, RUNTIMES.items(), strict=True):
        _, commands, taken, given, _ = row.split("|")
        verbs = [f"`{name} {verb}`" for verb in runtime.verbs]
        assert set(commands.strip().split(", ")) == {*verbs, *([f"`{name}`"] * runtime.bare)}
        for spelling in runtime.spellings:
            assert f"`{spelling.option}" in taken
            if spelling.root is not None:
                assert f"`{shlex.join(spelling.words('TARGET'))}`" in given


@pytest.mark.parametrize(
    "command",
    [
        "cat --dir a::/",
        "wasmtime.sh --dir a::/ app.wasm",
        "wasmtime compile --dir a::/ app.wasm",
        "wasmer login",
        "wasmedge compile --dir /:a app.wasm",
        "wazero -mount=a:/ app.wasm",
        "wazero compile app.wasm",
        "env wasmtime --dir a::/ app.wasm",
    ],
)
def test_commands_that_run_no_guest_of_the_table(command: str) -> None:
    assert read_command(tuple(command.split())) is None


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("wasmtime --dir {}::/ app.wasm", True),
        ("wasmtime --dir {}/lib::/lib --dir a::/ app.wasm", True),
        ("wasmer run --mapdir=/:{} app.wasm", True),
        ("wasmtime {}/app.wasm", True),
        ("wasmtime app.wasm {}", True),
        ("wasmtime --dir a::/ app.wasm {}", False),
        ("wasmtime app.wasm", False),
    ],
)
def test_a_command_that_names_the_target_itself(command: str, named: bool) -> None:
    assert read(command).names_target is named


@pytest.mark.parametrize(
    ("command", "ignored"),
    [
        ("wasmtime --dir a::/::ro app.wasm", ["a::/::ro"]),
        ("wasmtime --dir a::/ --dir=b::/lib::ro,x app.wasm", ["b::/lib::ro,x"]),
        ("wasmtime --dir a::/::rw app.wasm", []),
        ("wasmtime --dir a::/ app.wasm --dir b::/::ro", []),
        ("wasmedge --dir /:a:readonly app.wasm", []),
    ],
)
def test_third_fields_that_wasmtime_ignores(command: str, ignored: list[str]) -> None:
    assert read(command).ignored_modes() == ignored


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("wasmtime --dir a::/::rx app.wasm", "wasmtime --dir a::/::rx: has an unknown option"),
        ("wasmtime --dir a::/x/.. app.wasm", "wasmtime --dir a::/x/..: is not usable"),
        ("wasmtime --dir ::/ app.wasm", "wasmtime --dir ::/: has an empty HOST"),
        ("wasmtime --mapdir a app.wasm", "wasmtime --mapdir a: has no '::'"),
        ("wasmer run --volume a:/:ro app.wasm", "wasmer --volume a:/:ro: has more than one ':'"),
        ("wasmedge --dir /:a:ro app.wasm", "wasmedge --dir /:a:ro: has an unknown mode 'ro'"),
        ("iwasm --map-dir=a app.wasm", "iwasm --map-dir a: has no '::'"),
    ],
)
def test_what_cannot_be_read(command: str, words: str) -> None:
    """Where the runtime would go on in some way of its own, it is an error all the same."""
    with pytest.raises(UsageError) as caught:
        read(command).preopens()
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    "command", ["wasmtime --new val --dir a::/ app.wasm", "wasmedge --new app.wasm --dir /:a x"]
)
def test_an_unknown_option_that_might_take_the_next_word(command: str) -> None:
    """Whose the directory is depends on it: it is neither lifted nor left in silence."""
    with pytest.raises(UsageError, match="put them first, or add --keep-dirs"):
        read(command)
    assert read_command(tuple(command.split()), guess=True) is not None


@pytest.mark.parametrize(
    ("command", "run_as"),
    [
        ("wasmtime --dir a::/ --new val app.wasm", "wasmtime --dir /T::/ --new val app.wasm"),
        ("wasmtime --new --dir a::/ app.wasm", "wasmtime --new --dir /T::/ app.wasm"),
        ("wasmtime --new=val --dir a::/ app.wasm", "wasmtime --new=val --dir /T::/ app.wasm"),
        ("wasmtime --new app.wasm", "wasmtime --dir /T::/ --new app.wasm"),
        ("wasmer run --new val --dir a app.wasm", "wasmer run --new val --mapdir /:/T app.wasm"),
    ],
)
def test_an_unknown_option_that_makes_no_difference(command: str, run_as: str) -> None:
    assert rewritten(command) == run_as


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_target_that_holds_the_separator(name: str) -> None:
    """A TMPDIR with a colon would name another directory than the target."""
    verb = "run" if name == "wazero" else ""
    guest = read(f"{name} {verb} app.wasm")
    with pytest.raises(UsageError, match="TMPDIR"):
        guest.with_target("/a:b/T")


def test_a_target_that_holds_the_placeholder() -> None:
    guest = read("wasmtime --dir a::/ app.wasm {}")
    assert guest.with_target("/{}/T") == ["wasmtime", "--dir", "/{}/T::/", "app.wasm", "/{}/T"]

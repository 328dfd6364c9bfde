"""What overlayd says of aliases: `check`, `check --json`, `explain`, and `--alias refuse`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from aliases.kinds import Hook, link, nothing, plant
from aliases.private_mounts import bind, in_private_mounts
from support.processes import attempt, complaint

BOTH_RO = "are one host directory, read-only both"
BOTH_RW = "are one host directory, writable both"


@dataclass(frozen=True)
class Case:
    """A table, what `check` says of it, and what `explain` says of one guest path."""

    dirs: tuple[str, ...]
    sentences: tuple[str, ...]
    """In the order of the report; a conflict is a warning."""
    asked: str = "/"
    reason: str = "its preopen is writable"
    before: Hook = nothing


def conflict(writable: str, read_only: str, kind: str = "directory") -> str:
    return (
        f"{writable} is writable, but the same host {kind} is shown read-only at {read_only};"
        " it will be read-only"
    )


CASES = {
    "same directory twice": Case(
        ("ro::/a", "ro::/b::ro"),
        (conflict("/a", "/b"),),
        "/a/d",
        "it is shown read-only at /b/d",
    ),
    "read-only below writable": Case(
        ("w::/w", "w/sub::/r::ro"),
        (conflict("/w/sub", "/r"),),
        "/w/sub/f",
        "it is shown read-only at /r/f",
    ),
    "read-only below writable, in its place": Case(
        ("w::/w", "w/sub::/w/sub::ro"), (), "/w/sub/f", "its preopen is read-only"
    ),
    "writable below read-only": Case(
        ("p::/p::ro", "p/out::/scratch"),
        (conflict("/scratch", "/p/out"),),
        "/scratch/f",
        "it is shown read-only at /p/out/f",
    ),
    "writable below read-only, masked": Case(("p::/::ro", "p/out::/out"), (), "/out/f"),
    "writable below read-only, masked by another": Case(
        ("p::/p::ro", "w::/p/out", "p/out::/scratch"), (), "/scratch/f"
    ),
    "bind mount": Case(
        ("ro::/a::ro", "b::/b"),
        (conflict("/b", "/a"),),
        "/b/d",
        "it is shown read-only at /a/d",
        before=lambda place: bind(place / "ro", place / "b"),
    ),
    "bind mount inside the writable source": Case(
        ("ro::/a::ro", "w::/w"),
        (conflict("/w/m", "/a"),),
        "/w/m/f",
        "it is shown read-only at /a/f",
        before=lambda place: bind(place / "ro", place / "w/m"),
    ),
    "bind mount inside the read-only source": Case(
        ("ro::/a::ro", "w::/w"),
        (conflict("/w/sub", "/a/m"),),
        "/w/sub/f",
        "it is shown read-only at /a/m/f",
        before=lambda place: bind(place / "w/sub", place / "ro/m"),
    ),
    "one file twice": Case(
        ("ro/f::/a", "ro/f::/b::ro"),
        (conflict("/a", "/b", "file"),),
        "/a",
        "it is shown read-only at /b",
    ),
    "file of a read-only source": Case(
        ("ro::/ro::ro", "ro/f::/a"),
        (conflict("/a", "/ro/f", "file"),),
        "/a",
        "it is shown read-only at /ro/f",
    ),
    "file of a writable source": Case(
        ("w::/w", "w/f::/a::ro"),
        (conflict("/w/f", "/a", "file"),),
        "/w/f",
        "it is shown read-only at /a",
    ),
    "bind mount of one file": Case(
        ("ro::/ro::ro", "w::/w"),
        (conflict("/w/m", "/ro/f", "file"),),
        "/w/m",
        "it is shown read-only at /ro/f",
        before=lambda place: bind(place / "ro/f", place / "w/m"),
    ),
    "read-only twice": Case(
        ("ro::/a::ro", "ro::/b::ro"), (f"/a and /b {BOTH_RO}",), "/a/f", "its preopen is read-only"
    ),
    "writable twice": Case(("w::/a", "w/sub::/b"), (f"/a/sub and /b {BOTH_RW}",), "/b/f"),
    "hard link": Case(
        ("ro::/ro::ro", "w::/w"),
        (),
        "/w/alias",
        "another hard link of the same file is shown read-only",
        before=link("ro/f", "w/alias"),
    ),
    "hard link of a file attached by itself": Case(
        ("ro/f::/a::ro", "w::/w"),
        (),
        "/w/alias",
        "it is shown read-only at /a",
        before=link("ro/f", "w/alias"),
    ),
    "no alias": Case(("ro::/ro::ro", "w::/w"), (), "/w/f"),
}

each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
each_order = pytest.mark.parametrize("backwards", [False, True], ids=["", "backwards"])


def run(case: Case, place: Path, backwards: bool, *arguments: str) -> tuple[int, str, str]:
    """An overlayd command on the case's table, in the order asked for: status and output."""
    plant(place)
    dirs: Sequence[str] = [f"--dir={place}/{entry}" for entry in case.dirs]
    dirs = dirs[::-1] if backwards else dirs

    def call() -> tuple[int, str, str]:
        case.before(place)
        done = attempt(arguments[0], *dirs, *arguments[1:])
        return done.returncode, done.stdout, done.stderr

    return in_private_mounts(call)


def is_warning(sentence: str) -> bool:
    return sentence.endswith("it will be read-only")


@each_order
@each_case
def test_check_says_it_in_words(case: Case, backwards: bool, tmp_path: Path) -> None:
    status, told, complained = run(case, tmp_path, backwards, "check")
    assert (status, complained) == (0, "")
    about_aliases = [line for line in told.splitlines() if "host" in line or "warning" in line]
    expected = [f"warning: {s}" if is_warning(s) else s for s in case.sentences]
    assert about_aliases == expected


@each_case
def test_check_says_it_to_programs(case: Case, tmp_path: Path) -> None:
    status, told, _ = run(case, tmp_path, False, "check", "--json")
    report = json.loads(told)
    assert status == 0
    assert [alias["effect"] for alias in report["aliases"]] == list(case.sentences)
    assert [alias["conflict"] for alias in report["aliases"]] == [
        is_warning(sentence) for sentence in case.sentences
    ]
    assert report["warnings"] == [s for s in case.sentences if is_warning(s)]


@each_case
def test_strict_fails_for_a_warning(case: Case, tmp_path: Path) -> None:
    status, told, _ = run(case, tmp_path, False, "check", "--strict")
    assert status == (1 if any(is_warning(s) for s in case.sentences) else 0)
    assert told, "the report is printed all the same"


@each_case
def test_explain_gives_the_reason(case: Case, tmp_path: Path) -> None:
    status, told, _ = run(case, tmp_path, False, "explain", "--json", case.asked)
    (answer,) = json.loads(told)
    assert (status, answer["reason"]) == (0, case.reason)
    assert answer["writable"] is (case.reason == "its preopen is writable")


@pytest.mark.parametrize("command", ["check", "explain", "mount", "run"])
@each_case
def test_refusing_says_which_two(case: Case, command: str, tmp_path: Path) -> None:
    """Exit status 2 and nothing mounted, or nothing said where there is no conflict."""
    conflicts = [s for s in case.sentences if is_warning(s)]
    if not conflicts and command in ("mount", "run"):
        command = "check"  # what is not refused is mounted elsewhere
    (tmp_path / "target").mkdir()
    rest = {"explain": ["/"], "mount": [f"{tmp_path}/target"], "run": ["--", "true"]}
    status, _, said = run(
        case, tmp_path, False, command, "--alias", "refuse", *rest.get(command, [])
    )
    if not conflicts:
        assert (status, said) == (0, "")
        return
    assert (status, said.count("\n")) == (2, 1)
    sentence = conflicts[0].removesuffix("; it will be read-only")
    assert said.startswith(f"overlayd: error: --alias refuse: {sentence}; give ")
    for entry in case.dirs:
        if len(case.dirs) == 2:
            assert f"--dir {tmp_path}/{entry}" in said
    assert not os.path.ismount(tmp_path / "target")


def test_refusing_in_the_configuration_file(tmp_path: Path) -> None:
    plant(tmp_path)
    (tmp_path / "config.toml").write_text(
        'alias = "refuse"\n'
        '[[dir]]\nhost = "ro"\nguest = "/a"\n'
        '[[dir]]\nhost = "ro"\nguest = "/b"\nro = true\n'
    )
    said = complaint(attempt("check", "--config", f"{tmp_path}/config.toml"), 2)
    assert "/a is writable, but the same host directory is shown read-only at /b" in said
    done = attempt("check", "--config", f"{tmp_path}/config.toml", "--alias", "ro-wins")
    assert done.returncode == 0

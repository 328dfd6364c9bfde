"""Guest paths: what is normalised, what is refused, and that nothing else changes (SPEC.md 2)."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.table.guest_path import NAME_MAX, parse_guest_path, printable, show

names = st.binary(min_size=1, max_size=12).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)
noise = st.lists(st.sampled_from(["/", "/./", "//", "/.//./"]), min_size=1, max_size=3)


@pytest.mark.parametrize("text", ["/lib", "//lib///", "./lib", "lib", "lib/.", "/./lib/", ".//lib"])
def test_spellings_of_one_path(text: str) -> None:
    assert parse_guest_path(text) == (b"lib",)


@pytest.mark.parametrize("text", [".", "/", "//", "./", "/.", "./././"])
def test_spellings_of_the_root(text: str) -> None:
    assert parse_guest_path(text) == ()


@pytest.mark.parametrize("text", ["..", "/..", "a/..", "../a", "a/../b", "/a/b/.."])
def test_dot_dot_is_never_repaired(text: str) -> None:
    with pytest.raises(ValueError, match=r"'\.\.' component"):
        parse_guest_path(text)


@pytest.mark.parametrize("text", ["...", "..a", "a..", ". ", ".a"])
def test_names_that_only_look_like_dots_are_names(text: str) -> None:
    assert parse_guest_path(text) == (text.encode(),)


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        parse_guest_path("")


@pytest.mark.parametrize("text", ["\0", "/a\0b", "a/\0"])
def test_a_nul_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="NUL"):
        parse_guest_path(text)


def test_longest_component() -> None:
    assert parse_guest_path("/" + "n" * NAME_MAX) == (b"n" * NAME_MAX,)
    with pytest.raises(ValueError, match="longer than 255 bytes"):
        parse_guest_path("/" + "n" * (NAME_MAX + 1))


def test_length_is_counted_in_bytes() -> None:
    assert len(parse_guest_path("ä" * 127)[0]) == 254
    with pytest.raises(ValueError, match="longer than 255 bytes"):
        parse_guest_path("ä" * 128)


@given(path=st.lists(names, max_size=6), separators=st.lists(noise, min_size=7, max_size=7))
def test_noise_between_names_changes_nothing(
    path: list[bytes], separators: list[list[str]]
) -> None:
    pieces = ["".join(separators[0])]
    for name, separator in zip(path, separators[1:], strict=False):
        pieces += [os.fsdecode(name), "".join(separator)]
    assert parse_guest_path("".join(pieces)) == tuple(path)


@given(text=st.text(st.sampled_from("ab./\0é"), max_size=12))
def test_normalising_is_idempotent_or_refused(text: str) -> None:
    try:
        path = parse_guest_path(text)
    except ValueError:
        components = text.split("/")
        assert not text or "\0" in text or ".." in components
        return
    again = "/" + "/".join(os.fsdecode(name) for name in path)
    assert parse_guest_path(again) == path
    assert [os.fsencode(c) for c in text.split("/") if c not in ("", ".")] == list(path)


@given(path=st.lists(st.binary(min_size=1, max_size=8), max_size=4))
def test_what_is_shown_is_one_printable_line(path: list[bytes]) -> None:
    shown = show(tuple(path))
    assert shown.startswith("/")
    assert shown.isprintable()


def test_stray_bytes_and_control_characters_are_escaped() -> None:
    assert printable(os.fsdecode(b"a\xffb")) == r"a\xffb"
    assert printable("one\ntwo\x1b[0m") == r"one\ntwo\x1b[0m"
    assert printable("plain ü") == "plain ü"

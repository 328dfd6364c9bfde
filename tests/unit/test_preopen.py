"""The grammar of `--dir`: HOST[::GUEST[::OPTIONS]] (SPEC.md section 2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlayd.errors import UsageError
from overlayd.table.preopen import make_preopen, parse_preopen


def complaint(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_preopen(text)
    words = str(caught.value)
    assert words.isprintable(), "an error is one line"
    assert words.startswith("--dir "), "an error names its entry"
    assert caught.value.exit_code == 2
    return words


def test_three_fields() -> None:
    preopen = parse_preopen("/srv/app::/data::ro")
    assert (preopen.host, preopen.guest, preopen.read_only) == ("/srv/app", (b"data",), True)
    assert preopen.origin == "--dir /srv/app::/data::ro"


def test_guest_defaults_to_host_as_written() -> None:
    assert parse_preopen("/srv/app").guest == (b"srv", b"app")
    assert parse_preopen("srv").guest == (b"srv",)
    assert parse_preopen(".").guest == ()


def test_a_host_that_makes_no_guest_path_wants_one_named() -> None:
    assert "::/GUEST" in complaint("../up")


@pytest.mark.parametrize(
    ("options", "read_only"),
    [("", False), ("::rw", False), ("::ro", True), ("::ro,ro", True), ("::rw,rw", False)],
)
def test_options(options: str, read_only: bool) -> None:
    preopen = parse_preopen(f"/h::/g{options}")
    assert preopen.read_only is read_only
    assert preopen.options == ("ro" if read_only else "rw")


@pytest.mark.parametrize("options", ["RO", "readonly", " ro", "ro,exec", "ro;rw"])
def test_unknown_options(options: str) -> None:
    assert "'ro' or 'rw'" in complaint(f"/h::/g::{options}")


@pytest.mark.parametrize("options", ["", "ro,", ",ro", ","])
def test_empty_options(options: str) -> None:
    assert "empty option" in complaint(f"/h::/g::{options}")


def test_contradicting_options() -> None:
    assert "both 'ro' and 'rw'" in complaint("/h::/g::ro,rw")


@pytest.mark.parametrize("text", ["", "::/g", "::", "::/g::ro"])
def test_empty_host(text: str) -> None:
    assert "empty HOST" in complaint(text)


@pytest.mark.parametrize("text", ["/h::", "/h::::ro"])
def test_empty_guest(text: str) -> None:
    assert "guest path is empty" in complaint(text)


@pytest.mark.parametrize("text", ["/h::..", "/h::/a/../b", "/h::../a::ro"])
def test_dot_dot_in_guest(text: str) -> None:
    assert "'..' component" in complaint(text)


@pytest.mark.parametrize("text", ["/h\0::/g", "/h::/g\0"])
def test_nul(text: str) -> None:
    assert "NUL" in complaint(text)


def test_too_many_fields() -> None:
    words = complaint("/h::/g::ro::more")
    assert "4 fields" in words
    assert "--config" in words


def test_only_a_double_colon_separates() -> None:
    preopen = parse_preopen("/a:b::/c:d")
    assert (preopen.host, preopen.guest) == ("/a:b", (b"c:d",))


def test_written_out_again_it_is_the_same_preopen() -> None:
    text = str(parse_preopen("/srv::lib//x/::ro"))
    assert text == "/srv::/lib/x::ro"
    again = parse_preopen(text)
    assert (again.host, again.guest, again.read_only) == ("/srv", (b"lib", b"x"), True)


def test_a_config_entry_may_hold_the_separator() -> None:
    preopen = make_preopen("/a::b", "/g", read_only=False, origin="file: dir[0]")
    assert preopen.host == "/a::b"


def test_an_error_of_a_config_entry_names_it() -> None:
    with pytest.raises(UsageError, match=r"^file: dir\[3\]: has an empty HOST"):
        make_preopen("", "/g", read_only=False, origin="file: dir[3]")


@given(text=st.text(st.sampled_from("ab/.:,ro w\n\0\udcff"), max_size=20))
def test_anything_is_read_or_refused_in_one_line(text: str) -> None:
    words = None
    try:
        preopen = parse_preopen(text)
    except UsageError as error:
        words = str(error)
    if words is not None:
        assert words.isprintable()
        return
    assert preopen.host
    assert b".." not in preopen.guest

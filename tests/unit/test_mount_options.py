"""`-o`: what mount(8) users write, what reaches libfuse, what is an error (SPEC.md section 8)."""

from __future__ import annotations

import pytest

from overlayd.errors import UsageError
from overlayd.service.mount_options import fuse_options, parse_mount_options, target_mode


def asked(*texts: str) -> frozenset[str]:
    return parse_mount_options(texts)


@pytest.mark.parametrize("word", ["ro", "noatime", "allow_other", "dev", "suid", "nonempty"])
def test_flags(word: str) -> None:
    assert asked(word) == {word}


def test_several_words_and_several_options() -> None:
    assert asked("ro,noatime", "dev,,") == {"ro", "noatime", "dev"}


@pytest.mark.parametrize("word", ["nofail", "_netdev", "x-systemd.automount", "x-gvfs-hide"])
def test_what_fstab_has_for_others_is_accepted_and_ignored(word: str) -> None:
    assert asked(word) == frozenset()


def test_values() -> None:
    assert asked("fsname=mine,subtype=x") == {"fsname=mine", "subtype=x"}


@pytest.mark.parametrize("word", ["fsname", "fsname=", "subtype="])
def test_a_missing_value(word: str) -> None:
    with pytest.raises(UsageError, match="needs a value"):
        asked(word)


@pytest.mark.parametrize("word", ["bogus", "ro=1", "uid=3", "bogus=1", "RO"])
def test_an_unknown_option_is_an_error_that_lists_the_known(word: str) -> None:
    with pytest.raises(UsageError, match="unknown mount option") as caught:
        asked("ro", word)
    assert f"-o {word}" in str(caught.value)
    assert "noatime" in str(caught.value)


def test_defaults_are_telling() -> None:
    options = fuse_options(frozenset(), ["/srv/app", "/var/lib"], allow_other=False)
    assert options == {"fsname=/srv/app+/var/lib", "subtype=overlayd"}


def test_what_the_user_says_wins() -> None:
    options = fuse_options(frozenset({"fsname=x", "subtype=y"}), ["/a"], allow_other=False)
    assert options == {"fsname=x", "subtype=y"}


def test_our_own_options_stay_here() -> None:
    assert "nonempty" not in fuse_options(frozenset({"nonempty"}), ["/a"], allow_other=False)


def test_allow_other() -> None:
    assert "allow_other" in fuse_options(frozenset(), ["/a"], allow_other=True)


def test_a_host_path_can_smuggle_no_option_in() -> None:
    (name,) = (
        option
        for option in fuse_options(frozenset(), ["/a,dev,suid\n\\x"], allow_other=False)
        if option.startswith("fsname=")
    )
    assert name == "fsname=/a_dev_suid__x"


def test_many_sources_give_a_name_of_bounded_length() -> None:
    options = fuse_options(frozenset(), ["/source"] * 1000, allow_other=False)
    assert max(map(len, options)) <= len("fsname=") + 128


@pytest.mark.parametrize(
    ("word", "mode"),
    [
        ("x-mount.mkdir", 0o755),
        ("X-mount.mkdir", 0o755),
        ("x-mount.mkdir=0555", 0o555),
        ("x-mount.mkdir=1777", 0o1777),
        ("x-mount.owner=root", None),
        ("ro", None),
    ],
)
def test_the_mode_of_a_target_to_create(word: str, mode: int | None) -> None:
    assert target_mode(asked(word, "dev")) == mode
    assert fuse_options(asked(word), ["/a"], allow_other=False) & {word} == {word} & {"ro"}


@pytest.mark.parametrize("value", ["", "0888", "rwx", "-1", "17777", "0o555", "²"])
def test_a_mode_that_is_none(value: str) -> None:
    with pytest.raises(UsageError, match="mode in octal"):
        asked(f"x-mount.mkdir={value}")

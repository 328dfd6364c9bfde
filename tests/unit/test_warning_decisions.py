"""What users are warned of: the decisions, on facts passed in."""

from __future__ import annotations

import pytest

from overlayd.service.warnings import Visibility, has_consent, ignored_mode, unseen_mount

PRIVATE = "private mount namespace"
CONTAINER = "outside this container"


@pytest.mark.parametrize(
    ("same_namespace", "seen", "in_container", "shared", "said"),
    [
        # On the machine itself.
        (True, True, False, False, None),
        (True, True, False, True, None),
        # In a unit with PrivateTmp=, say: its mounts are slaves, and its own may even be shared.
        (False, False, False, False, PRIVATE),
        (False, False, False, True, PRIVATE),
        # In a unit whose mounts reach the machine.
        (False, True, False, True, None),
        # As a user who may not look at PID 1.
        (None, None, False, False, None),
        (None, None, False, True, None),
        # In a container, as its PID 1 or next to it.
        (True, True, True, False, CONTAINER),
        (True, True, True, True, None),
        (None, None, True, False, CONTAINER),
        (None, None, True, True, None),
        # In a namespace of its own inside a container.
        (False, False, True, False, PRIVATE),
        (False, True, True, True, None),
    ],
)
def test_a_mount_that_nobody_sees(
    same_namespace: bool | None,
    seen: bool | None,
    in_container: bool,
    shared: bool,
    said: str | None,
) -> None:
    check(Visibility(same_namespace, seen, in_container, shared, on_slave=False), said)


@pytest.mark.parametrize(
    ("same_namespace", "seen", "in_container", "shared", "said"),
    [
        # In a unit that has too few capabilities to look at PID 1.
        (None, None, False, False, PRIVATE),
        # In a container whose volume takes from the host alone.
        (True, True, True, False, CONTAINER),
        (None, None, True, False, CONTAINER),
        # On a machine where somebody made it a slave on purpose; PID 1 sees it.
        (True, True, False, False, None),
        (False, True, False, False, None),
    ],
)
def test_a_target_on_a_slave(
    same_namespace: bool | None,
    seen: bool | None,
    in_container: bool,
    shared: bool,
    said: str | None,
) -> None:
    check(Visibility(same_namespace, seen, in_container, shared, on_slave=True), said)


def check(facts: Visibility, said: str | None) -> None:
    words = unseen_mount("/t", facts)
    if said is None:
        assert words is None
    else:
        assert words is not None and words.startswith("/t ") and said in words


@pytest.mark.parametrize(
    ("text", "consent"),
    [
        ("", False),
        ("#user_allow_other\n", False),
        ("mount_max = 1000\nuser_allow_other\n", True),
        ("  user_allow_other  ", True),
        ("user_allow_other = yes\n", False),
    ],
)
def test_consent(text: str, consent: bool) -> None:
    assert has_consent(text) is consent


def test_what_is_said_of_an_ignored_mode_is_one_line() -> None:
    lifted = ignored_mode("wasmtime", "a\nb::/::ro", lifted=True)
    kept = ignored_mode("wasmtime", "a::/::ro", lifted=False)
    assert "\n" not in lifted and "overlayd acts on it" in lifted
    assert kept.startswith("wasmtime --dir a::/::ro: ") and "may write" in kept

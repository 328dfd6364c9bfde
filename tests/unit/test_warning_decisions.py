"""What users are warned of: the decisions, on facts passed in."""

from __future__ import annotations

import pytest

from overlayd.service.warnings import Visibility, has_consent, ignored_mode, unseen_mount

PRIVATE = "private mount namespace"
CONTAINER = "outside this container"


@pytest.mark.parametrize(
    ("same_namespace", "seen", "in_container", "is_service", "shared", "on_slave", "said"),
    [
        # On the machine itself.
        (True, True, False, True, False, False, None),
        (True, True, False, True, True, False, None),
        (True, True, False, True, False, True, None),
        # In a unit with PrivateTmp=, say: its mounts are slaves, and systemd makes them shared too.
        (False, False, False, True, True, True, PRIVATE),
        (False, False, False, False, False, False, PRIVATE),
        # In one that has too few capabilities to look at PID 1.
        (None, None, False, True, True, True, PRIVATE),
        (None, None, False, True, True, False, None),
        # In a namespace whose mounts reach the machine.
        (False, True, False, True, True, False, None),
        (False, True, False, False, False, True, None),
        # As a user who may not look at PID 1.
        (None, None, False, False, False, False, None),
        (None, None, False, False, True, False, None),
        # In a sidecar, as its PID 1 or next to it; the volume takes from the host alone, or less.
        (True, True, True, True, False, True, CONTAINER),
        (None, None, True, True, False, False, CONTAINER),
        (True, True, True, True, True, False, None),
        (None, None, True, True, True, True, None),
        # In a container that mounts for itself.
        (True, True, True, False, False, True, None),
        (None, None, True, False, False, True, None),
        # In a namespace of its own inside a container.
        (False, False, True, True, False, False, PRIVATE),
        (False, False, True, False, True, False, PRIVATE),
        (False, True, True, True, True, False, None),
    ],
)
def test_a_mount_that_nobody_sees(
    same_namespace: bool | None,
    seen: bool | None,
    in_container: bool,
    is_service: bool,
    shared: bool,
    on_slave: bool,
    said: str | None,
) -> None:
    facts = Visibility(same_namespace, seen, in_container, is_service, shared, on_slave)
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

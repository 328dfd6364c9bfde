"""`--cache` (SPEC.md section 7)."""

from __future__ import annotations

import pytest

from overlayd.kernel.cache import CachePolicy


@pytest.mark.parametrize(
    ("text", "seconds"), [("none", 0), ("0", 0), ("2", 2), ("0.25", 0.25), ("86400", 86400)]
)
def test_seconds(text: str, seconds: float) -> None:
    assert CachePolicy.parse(text).seconds == seconds


def test_coherent_shows_a_change_within_100_ms() -> None:
    policy = CachePolicy.parse("coherent")
    assert policy.watches
    assert 0 <= policy.seconds <= 0.1
    assert policy.slow_seconds == 1


@pytest.mark.parametrize("text", ["none", "5"])
def test_the_other_modes_watch_nothing_and_keep_nothing_of_slow_sources(text: str) -> None:
    policy = CachePolicy.parse(text)
    assert (policy.watches, policy.slow_seconds) == (False, 0)


@pytest.mark.parametrize("text", ["", "forever", "-1", "86401", "inf", "nan", "1s", "COHERENT"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        CachePolicy.parse(text)

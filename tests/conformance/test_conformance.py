"""Every behaviour on plain directories, through overlayd, and on kernel bind mounts.

The plain directory is the control: a behaviour that does not hold there asks for something that
Linux does not do.
"""

from __future__ import annotations

import pytest

from conformance.catalogue import BEHAVIOURS
from conformance.conftest import Environments
from conformance.exceptions import EXCEPTIONS

NESTED_PLACE = "area/data/inner/scratch"
"""A preopen in a preopen: where behaviours that need only a directory run in the nested layout."""

SIDES = {
    "plain directory": "kernel",
    "one preopen": "overlayd",
    "one preopen, all users": "overlayd",
    "nested preopens": "overlayd",
    "nested preopens, uncached": "overlayd",
    "nested preopens, all users": "overlayd",
    "nested preopens, through the daemon": "overlayd",
    "nested preopens, all users, through the daemon": "overlayd",
    "nested bind mounts": "kernel",
    "nested bind mounts, chroot": "kernel",
}

OFFERED = {
    "nothing": [
        *("plain directory", "one preopen", "one preopen, all users", "nested preopens"),
        *("nested preopens, uncached", "nested preopens, all users", "nested bind mounts"),
    ],
    "users": [
        *("plain directory", "one preopen, all users", "nested preopens, all users"),
        "nested bind mounts",
    ],
    "layout": [
        *("nested preopens", "nested preopens, through the daemon", "nested preopens, uncached"),
        "nested bind mounts",
    ],
    "layout of all users": [
        *("nested preopens, all users", "nested preopens, all users, through the daemon"),
        "nested bind mounts",
    ],
    "links": [
        *("nested preopens", "nested preopens, through the daemon", "nested preopens, uncached"),
        "nested bind mounts, chroot",
    ],
}

RUNS = [
    pytest.param(name, place, id=f"{name}-{place}")
    for name, behaviour in BEHAVIOURS.items()
    for place in OFFERED[behaviour.needs]
]

_SHOWN: dict[tuple[str, str], set[str]] = {}
"""By name and place, what each run that went well has shown: none need be done twice."""


def run(environment: Environments, name: str, place: str) -> set[str]:
    """Run one behaviour; return the exceptions it has shown to hold."""
    within = NESTED_PLACE if place.startswith("nested") else "."
    directory = "" if BEHAVIOURS[name].needs not in ("nothing", "users") else within
    answer = environment(place).ask("behaviour", name, directory, SIDES[place])
    if "failure" in answer:
        pytest.fail(f"{name} on {place}:\n{answer['failure']}", pytrace=False)
    _SHOWN[name, place] = set(answer["shown"])
    return _SHOWN[name, place]


@pytest.mark.parametrize(("name", "place"), RUNS)
def test_behaviour(environment: Environments, name: str, place: str) -> None:
    run(environment, name, place)


def test_every_exception_is_shown_on_the_kernel_s_side(environment: Environments) -> None:
    shown: set[str] = set()
    for name, behaviour in BEHAVIOURS.items():
        place = OFFERED[behaviour.needs][-1]
        done = _SHOWN.get((name, place))
        shown |= run(environment, name, place) if done is None else done
    assert shown == set(EXCEPTIONS)

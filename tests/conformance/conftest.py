"""Every environment once for all behaviours: each costs a mount and a process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conformance.environments import Worker, kernel_tree, overlayd_tree, started
from conformance.layout import NESTED_WITH_ALIASES, ONE_PREOPEN, Layout

THROUGH_THE_DAEMON = ("--passthrough", "off")
"""Of what each kind of behaviour runs on, a part: data passes the daemon by in the others."""

Environments = Callable[[str], Worker]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environments]:
    """The worker of an environment by its name, started when first asked for."""
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}

        def environment(name: str) -> Worker:
            if name not in workers:
                place = tmp_path_factory.mktemp("conformance")
                workers[name] = _start(stack, name, place)
            return workers[name]

        yield environment


def _start(stack: ExitStack, name: str, place: Path) -> Worker:
    if name == "plain directory":
        return stack.enter_context(started(place))
    layouts: dict[str, tuple[Layout, tuple[str, ...]]] = {
        "one preopen": (ONE_PREOPEN, ()),
        "one preopen, all users": (ONE_PREOPEN, ("--allow-other", *THROUGH_THE_DAEMON)),
        "nested preopens": (NESTED_WITH_ALIASES, ()),
        "nested preopens, uncached": (
            NESTED_WITH_ALIASES,
            ("--cache", "none", *THROUGH_THE_DAEMON),
        ),
        "nested preopens, all users": (NESTED_WITH_ALIASES, ("--allow-other",)),
        "nested preopens, through the daemon": (NESTED_WITH_ALIASES, THROUGH_THE_DAEMON),
        "nested preopens, all users, through the daemon": (
            NESTED_WITH_ALIASES,
            ("--allow-other", *THROUGH_THE_DAEMON),
        ),
    }
    if name in layouts:
        layout, options = layouts[name]
        return stack.enter_context(overlayd_tree(place, layout, options))[1]
    chroot = name == "nested bind mounts, chroot"
    return stack.enter_context(kernel_tree(place, NESTED_WITH_ALIASES, chroot=chroot))[1]


@pytest.fixture(scope="session", autouse=True)
def _own_runtime_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Records of the daemons started here go with the tests' other files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVERLAYD_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield

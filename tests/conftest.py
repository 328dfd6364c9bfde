"""Settings and fixtures that every level of tests shares."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from aliases.private_mounts import let_go_of_copies, set_apart
from support.processes import DATA_WAY

# Examples that touch a real file system take as long as the machine lets them.
settings.register_profile("overlayd", deadline=None)
settings.load_profile("overlayd")

# What a script starts in the background has SIGINT ignored, and under nohup SIGHUP; the daemons of
# the tests would inherit that.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_configure(config: pytest.Config) -> None:
    """Keep the mounts of tests that run side by side apart.

    A copy of a mount in another test's mount namespace would hold up the end of its daemon, and
    mounts that come and go wake every daemon that watches the host.
    """
    if hasattr(config, "workerinput") and os.geteuid() == 0:
        set_apart()
        let_go_of_copies()


@pytest.fixture(params=["auto", "off"])
def data_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test is run twice: with data past the daemon, and through it."""
    monkeypatch.setenv(DATA_WAY, request.param)


@pytest.fixture
def no_umask() -> Iterator[None]:
    """The daemon's own setting: the kernel has applied the caller's umask already."""
    before = os.umask(0)
    yield
    os.umask(before)

"""Which descriptor is the session's."""

from __future__ import annotations

import os

from overlayd.host.device import find_session


def test_what_came_through_exec_is_not_our_session() -> None:
    """Told to forget, another's mount would, and ours would show what was for a day."""
    inherited, own = (os.open("/dev/fuse", os.O_RDWR) for _ in range(2))
    os.set_inheritable(inherited, True)
    try:
        assert find_session() == own
        os.set_inheritable(own, True)
        assert find_session() is None
    finally:
        os.close(inherited)
        os.close(own)

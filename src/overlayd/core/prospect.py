"""What another mount table would take back, and nobody can: files written to past us.

Once the kernel writes a file by itself for a guest, nothing ends that but the guest's closing it,
nor can what a guest has mapped be taken away. So it has to be known before a table is changed.
"""

from collections.abc import Iterator
from typing import NamedTuple

from overlayd.core.access import Held
from overlayd.core.assembly import Survey
from overlayd.core.handles import Handle
from overlayd.core.overlay import Overlay
from overlayd.table.guest_path import show


class Irrevocable(NamedTuple):
    """An open file that would be read-only, and be written to all the same."""

    guest: str
    reason: str
    """Why it would be read-only."""


def written_past_us(overlay: Overlay) -> list[Handle]:
    """The handles that guests may write through past us."""
    return [handle for handle in overlay.namespace.handles if handle.cannot_be_revoked]


def irrevocable(overlay: Overlay, wanted: Survey) -> Iterator[Irrevocable]:
    """The files open for writing past us that *wanted* makes read-only. May wait for the host."""
    writers = written_past_us(overlay)
    if not writers or not any(preopen.read_only for preopen in wanted.table.preopens):
        return
    space = overlay.namespace
    prospect = Overlay(wanted.table, wanted.sources, space.rules)
    prospect.namespace.own_device = space.own_device
    with space.patience(), prospect.namespace.patience():
        for node, fd in {handle.node: handle.fd for handle in writers}.items():
            if fd is None:
                continue
            reason = prospect.access.judge_where_it_lies(fd)
            if reason is not None and overlay.access.judge(Held(node, fd)) is None:
                yield Irrevocable(show(space.guest_path(node)), reason)

"""When the kernel is told to let go of names, and when there is nothing to be told."""

from __future__ import annotations

from pathlib import Path

import trio
from trio.testing import MockClock

from overlayd.core.overlay import Overlay
from overlayd.kernel.forgetting import Crowded, Forgetter
from overlayd.kernel.notifications import Notifier, dropped
from support.core_guest import Guest
from support.planting import plant

MINUTE = 60


def told(overlay: Overlay, crowded: Crowded) -> list[bytes]:
    """What the kernel, which does nothing about it, is told within a minute."""
    said: list[bytes] = []
    notifier = Notifier(0, lambda _, message: said.append(message))

    async def main() -> None:
        with trio.move_on_after(MINUTE):
            await Forgetter(overlay.namespace, crowded, notifier).run()

    crowded.note(len(overlay.namespace.nodes))
    trio.run(main, clock=MockClock(autojump_threshold=0.01))
    return said


def crowd(place: Path, *entries: str) -> tuple[Overlay, Crowded]:
    """A mount of which the kernel knows ENTRIES, and more than it should."""
    plant(place, *entries)
    guest = Guest(f"{place}::/")
    for entry in entries:
        guest.number(f"/{entry.rstrip('/=')}")
    crowded = Crowded()
    crowded.limit = 2
    return guest.overlay, crowded


def test_files_are_let_go_of(tmp_path: Path) -> None:
    overlay, crowded = crowd(tmp_path, "a=", "b=", "c=", "d/")
    assert {dropped(1, name) for name in (b"a", b"b", b"c")} <= set(told(overlay, crowded))


def test_where_none_may_go_nobody_looks_again_and_again(tmp_path: Path) -> None:
    overlay, crowded = crowd(tmp_path, *(f"d{number}/" for number in range(20)))
    looks: list[int] = []
    oldest = overlay.namespace.nodes.oldest

    def noting(count: int) -> list[object]:
        looks.append(count)
        return list(oldest(count))

    overlay.namespace.nodes.oldest = noting  # type: ignore[method-assign, assignment]
    assert not told(overlay, crowded)
    assert len(looks) < 5
    assert not told(overlay, crowded) and len(looks) < 10, "once more, after another request"

"""What is set in FUSE replies that neither libfuse nor pyfuse3 knows of, by a small C extension.

The extension is optional: without it everything works, and costs more requests. It has to be
loaded before pyfuse3, which the first import from this room sees to (`_wire.c` says why).
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from overlayd.core.listings import Entry
from overlayd.host.credentials import Caller

Validity = tuple[float, float, int | None]
"""Seconds for a name, for its attributes, and what `Node.told_ns` is once the kernel was told."""

PARALLEL_DIROPS = 1 << 18
"""INIT: lookups and listings in one directory need not wait for each other."""
HANDLE_KILLPRIV_V2 = 1 << 28
"""INIT: set-id bits and file capabilities end with our writing, truncating and chown."""
PASSTHROUGH = 1 << 37
"""INIT: the kernel may read and write files that were registered with the session past us."""
DIRECT_IO = 1 << 0
"""Open: each read and write comes to us, with a backing file too; mmap is then that file's."""
KEEP_CACHE = 1 << 1
"""Open and opendir: what the kernel has cached of it stays valid."""
CACHE_DIR = 1 << 3
"""Opendir: the kernel may keep the listing, and answer from it."""

SWITCH = "OVERLAYD_WIRE"
"""`off` in this environment variable goes without the extension. For debugging."""


def _load() -> tuple[ModuleType | None, str]:
    """The extension, or None and why it is not there."""
    if os.environ.get(SWITCH) == "off":
        return None, f"switched off by {SWITCH}"
    if "pyfuse3" in sys.modules:
        return None, "pyfuse3 was loaded first"
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_GLOBAL)  # pyfuse3's call of libfuse is to come to it
    try:
        from overlayd.kernel import _wire
    except ImportError as error:
        return None, f"not built: {error}"
    finally:
        sys.setdlopenflags(flags)
    return _wire, ""


_extension, _absence = _load()


def absence() -> str:
    """Why the extension is not there; empty where it is."""
    return _absence


def want(*, passthrough: bool = False, stack_depth: int = 1, set_id: bool = False) -> None:
    """What to ask of the kernel, where it offers that, in the next mount.

    Unless programs in the mount may be run with set-id bits (*set_id*), the kernel need not ask
    before each write whether the file has capabilities: the host takes them and those bits away,
    as it does for its own users. What the kernel takes a file's mode for may then be out of date
    for a moment, which is too long where it goes by that mode itself.

    With *passthrough*, *stack_depth* says on how many file systems on top of each other backing
    files may lie: 1, or 2 for overlayfs, which then cannot have our mount as a layer.
    """
    if _extension is not None:
        flags = PARALLEL_DIROPS | (PASSTHROUGH if passthrough else 0)
        flags |= 0 if set_id else HANDLE_KILLPRIV_V2
        _extension.want(flags, stack_depth if passthrough else 0)


want()


@dataclass(frozen=True, slots=True)
class WireState:
    """What the extension does for the mount of this process."""

    trouble: str
    """Why replies go out as libfuse makes them; empty where they are amended."""
    session: int
    """The descriptor of the session, until `pyfuse3.close`; -1 where it is not known."""
    offered: int
    """INIT flags that the kernel offered, those of its second word from bit 32 on."""
    granted: int
    """INIT flags that it was answered with, libfuse's own among them. 0 before it has asked."""
    amended: int
    """How many replies to open, opendir and create were amended."""
    answered: int
    """How many requests were answered past libfuse and pyfuse3."""

    def __str__(self) -> str:
        if self.trouble:
            return f"off ({self.trouble})"
        uses = ["direct answers"] if self.answered else []
        uses += ["parallel lookups"] if self.granted & PARALLEL_DIROPS else []
        return ", ".join(uses) or "on"


def state() -> WireState:
    """How things are at the moment."""
    if _extension is None:
        return WireState(_absence, -1, 0, 0, 0, 0)
    trouble, *numbers = _extension.state()
    return WireState(trouble or "", *numbers)


Moved = list[tuple[int, int, int, int]]
"""What C has answered: opcode, handle, how often without a handler's having been called for it, and
the bytes that were read or a negative errno."""


def answer_with(
    handlers: dict[int, Callable[..., object]],
    caller: type[Caller],
    take_note: Callable[[Moved], None],
    *,
    polls: bool,
) -> bool:
    """Have requests answered by `handlers`, by opcode, as `direct` says; False if that cannot be.

    From then on reading never waits for a request: `pace` says what it does instead. *take_note* is
    called on the event loop with what was read, and what failed, before the release of a file is
    answered at the latest; with *polls*, what a disk is about to bring is looked for
    again and again.
    """
    return _extension is not None and bool(
        _extension.answer_with(handlers, caller, take_note, polls)
    )


def note_moves() -> None:
    """Have `take_note` called now, if there is anything to be noted."""
    if _extension is not None:
        _extension.note_moves()


def moves_begun() -> int:
    """How many requests so far were left to be read or brought to the disk in C."""
    return _extension.moves_begun() if _extension is not None else 0


def have_ended(count: int) -> bool:
    """Whether the first *count* of those have been answered."""
    return _extension is None or _extension.have_ended(count)


def end_moves() -> None:
    """Answer nothing in C any more, as the session is about to end."""
    if _extension is not None:
        _extension.end_moves()


def call_read_only(number: int) -> None:
    """The errno that is answered in C where the host says EROFS."""
    if _extension is not None:
        _extension.call_read_only(number)


def add_entries(
    listing: bytearray, room: int, entries: list[Entry], validities: list[Validity]
) -> int:
    """Add to *listing* as many of *entries* as go into a reply of *room* bytes; how many they are.

    What is said of each is in *validities*, as `coherence` has it.
    """
    assert _extension is not None
    return int(_extension.add_entries(listing, room, entries, validities))


def pace(patience: int, turn: int) -> None:
    """For the next read: look for requests for *patience* nanoseconds after the last, and have
    them answered for as long as *turn* nanoseconds, before others of this process get their turn.
    """
    assert _extension is not None
    _extension.pace(patience, turn)


def found_nothing() -> bool:
    """Whether the last read came back since there were no more requests."""
    assert _extension is not None
    return bool(_extension.found_nothing())


def amend_open(handle: int, flags: int, backing: int = 0) -> bool:
    """Have *flags* (FOPEN_*) set in the reply that hands *handle* out, which comes next.

    To be called by the handler of that request, right before it answers. *backing* is the number
    of a backing file that the kernel is to read and write past us, 0 for none. False where the
    reply will go out as it is, which is never an error; a handle that is not handed out after all
    is taken back by amending it again, with no flags.
    """
    if _extension is None:
        return False
    return bool(_extension.amend_open(handle, flags, backing))


def clears_set_id() -> bool:
    """Whether the request that was read last is a write after which no set-id bit may be left.

    To be asked by the handler of that request, before anything is awaited. The kernel clears them
    itself, before it writes, unless it was granted `HANDLE_KILLPRIV_V2`.
    """
    return _extension is not None and bool(_extension.clears_set_id())

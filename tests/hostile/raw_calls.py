"""Raw calls of the core in any order, with any number, handle, name and size."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from hypothesis import strategies as st

from overlayd.core.listings import Entry
from overlayd.core.overlay import Overlay
from overlayd.core.types import Attrs, Changes, WouldBlock
from overlayd.host.credentials import Caller
from support.core_guest import make_overlay
from support.planting import plant

CALLERS = (Caller(0, 0, 0), Caller(1234, 1234, 0), Caller(2**32 - 2, 2**32 - 2, 0))
_CHUNK = 1 << 16

picks = st.one_of(
    st.tuples(st.just(True), st.integers(0, 40)),
    st.tuples(st.just(True), st.integers(0, 40)),
    st.tuples(st.just(False), st.integers(0, 2**64 - 1)),
)
"""A number or handle: of those once given out, the how-manieth; or any at all."""
names = st.one_of(
    st.sampled_from(
        [b"f", b"g", b"d", b"loop", b"up", b"ro", b"file", b"masked", b"deep", b"new", b"new2"]
        + [b"", b".", b"..", b"a/b", b"a\0b", b"x" * 255, b"x" * 256, b"\n\x1b[2J", b"\xff", b" "]
    ),
    st.binary(max_size=20),
)
offsets = st.one_of(
    st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 2**62, 4096]), st.integers(0, 100)
)
sizes = st.sampled_from([0, 1, 10, 4096, 1 << 20])
flags = st.one_of(
    st.sampled_from([os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_TRUNC, os.O_APPEND]),
    st.integers(0, 2**32 - 1),
)
targets = st.one_of(
    st.sampled_from([b"/", b"..", b"../../..", b"loop", b"d/../..", b"/ro/file", b"a" * 4095]),
    st.binary(min_size=1, max_size=20).filter(lambda text: b"\0" not in text),
)
attribute_names = st.sampled_from([b"user.a", b"user.", b"trusted.t", b"x", b"user." + b"n" * 300])
values = st.sampled_from([b"", b"v", b"v" * 65536, b"v" * 65537])
words = st.integers(0, 2**32 - 1)
modes = st.one_of(
    st.sampled_from([stat.S_IFREG | 0o644, stat.S_IFIFO | 0o600, stat.S_IFSOCK | 0o600, 0]), words
)
ids = st.one_of(st.none(), st.integers(0, 2**32 - 1))
times = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-(2**93), 2**93))
changes = st.builds(
    Changes,
    mode=st.one_of(st.none(), words),
    uid=ids,
    gid=ids,
    size=st.one_of(st.none(), st.sampled_from([0, 10, 2**20, 2**63 - 1, -1])),
    atime_ns=times,
    mtime_ns=times,
)
callers = st.sampled_from(CALLERS)
counts = st.integers(1, 3)
NODE, HANDLE = "node", "handle"

CALLS: dict[str, tuple[object, ...]] = {
    "names.lookup": (NODE, names),
    "names.forget": (NODE, counts),
    "names.opendir": (NODE, callers),
    "names.mkdir": (NODE, names, modes, callers),
    "names.mknod": (NODE, names, modes, words, callers),
    "names.symlink": (NODE, names, targets, callers),
    "names.link": (NODE, NODE, names, callers),
    "names.unlink": (NODE, names, callers),
    "names.rmdir": (NODE, names, callers),
    "names.rename": (NODE, names, NODE, names, st.integers(0, 7), callers),
    "attributes.getattr": (NODE,),
    "attributes.setattr": (NODE, changes, st.one_of(st.none(), picks), callers),
    "attributes.readlink": (NODE,),
    "attributes.access": (NODE, words, callers),
    "attributes.statfs": (),
    "attributes.getxattr": (NODE, attribute_names, callers),
    "attributes.listxattr": (NODE, callers),
    "attributes.setxattr": (NODE, attribute_names, values, callers),
    "attributes.removexattr": (NODE, attribute_names, callers),
    "data.open": (NODE, flags, callers),
    "data.create": (NODE, names, modes, flags, callers),
    "data.read_cached": (HANDLE, offsets, sizes),
    "data.origin": (HANDLE,),
    "data.origin_to_sync": (HANDLE,),
    "data.read": (HANDLE, offsets, sizes),
    "data.write": (HANDLE, offsets, values),
    "data.flush": (HANDLE,),
    "data.fsync": (HANDLE, st.booleans()),
    "data.release": (HANDLE,),
    "listings.entries": (HANDLE, offsets),
}


def _call(name: str) -> st.SearchStrategy[tuple[str, list[object]]]:
    kinds = CALLS[name]
    drawn = [picks if isinstance(kind, str) else kind for kind in kinds]
    return st.tuples(st.just(name), st.tuples(*drawn).map(list))


# Oftener what brings numbers and handles to work on.
steps = st.lists(
    st.sampled_from(
        [*CALLS, *["names.lookup", "data.open", "data.create", "names.mkdir"] * 3]
    ).flatmap(_call),
    min_size=5,
    max_size=60,
)


class Kernel:
    """Makes calls, and keeps the books that the kernel would keep."""

    def __init__(self, overlay: Overlay) -> None:
        self.overlay = overlay
        self.numbers = [1]
        self.handles: list[int] = []
        self.lent: dict[int, int] = {}
        self.open: set[int] = set()

    def resolved(self, name: str, drawn: list[object]) -> list[object]:
        """DRAWN with real numbers and handles; what is given back is at most what was given."""
        kinds: list[object] = list(CALLS[name])
        found = [
            _pick(self.numbers if kind == NODE else self.handles, value)
            if isinstance(kind, str)
            else value
            for kind, value in zip(kinds, drawn, strict=True)
        ]
        if name == "attributes.setattr" and isinstance(found[2], tuple):
            found[2] = _pick(self.handles, found[2])
        if name == "names.forget":
            number, count = found
            assert isinstance(number, int) and isinstance(count, int)
            found[1] = min(count, self.lent.get(number, 0))
        return found

    def make(self, name: str, drawn: list[object]) -> None:
        """One call; OSError with a number is an answer, anything else is not."""
        arguments = self.resolved(name, drawn)
        family, _, verb = name.partition(".")
        method = getattr(getattr(self.overlay, family), verb)
        try:
            with self.overlay.namespace.patience():
                answer = method(*arguments)
                if name == "listings.entries":
                    self._listed(answer)
        except OSError as error:
            number = error.errno
        except WouldBlock as error:
            raise AssertionError("patience was granted") from error
        else:
            self._note(name, arguments, answer)
            return
        assert number, name

    def _listed(self, listing: Iterator[list[Entry]]) -> None:
        """Accept some of a listing and refuse the rest, as a full buffer would."""
        room = 5
        for entries in listing:
            taken = entries[:room]
            self.overlay.listings.settle(entries, len(taken))
            for entry in taken:
                if entry.cookie > 2:
                    self._lend(entry.attrs.number)
            room -= len(taken)
            if room == 0:
                return

    def _note(self, name: str, arguments: list[object], answer: object) -> None:
        if name == "names.forget":
            number, count = arguments
            assert isinstance(number, int) and isinstance(count, int)
            if number in self.lent:
                self.lent[number] -= count
        elif name == "data.release":
            assert isinstance(arguments[0], int)
            self.open.discard(arguments[0])
        elif name in ("names.opendir", "data.open"):
            assert isinstance(answer, int)
            self._opened(answer)
        elif name == "data.create":
            self._opened(answer.handle)  # type: ignore[attr-defined]
            self._lend(answer.attrs.number)  # type: ignore[attr-defined]
        elif isinstance(answer, Attrs) and name.startswith("names."):
            self._lend(answer.number)

    def _opened(self, handle: int) -> None:
        self.handles.append(handle)
        self.open.add(handle)

    def _lend(self, number: int) -> None:
        self.numbers.append(number)
        self.lent[number] = self.lent.get(number, 0) + 1

    def check_books(self) -> None:
        """What the core counts is what was given out."""
        space = self.overlay.namespace
        held = {node.number: node.lookups for node in space.nodes if node.number != 1}
        lent = {number: count for number, count in self.lent.items() if count}
        assert held == lent, [node for node in space.nodes if node.lookups != lent.get(node.number)]
        assert len(space.handles) == len(self.open)

    def give_back(self) -> None:
        """Release and forget everything; then nothing is left."""
        for handle in self.open:
            self.overlay.data.release(handle)
        for number, count in self.lent.items():
            if count:
                self.overlay.names.forget(number, count)
        self.open.clear()
        self.lent.clear()
        self.check_books()


def _pick(known: list[int], drawn: object) -> int:
    assert isinstance(drawn, tuple)
    is_known, number = drawn
    assert isinstance(number, int)
    return known[-1 - number % len(known)] if is_known and known else number


def hostile_tree(place: Path) -> tuple[str, ...]:
    """Host trees with loops, links out, masked and read-only places; the preopens over them."""
    top = plant(
        place / "top", "f=f", "g=g", "d/f=df", "d/masked/secret=s", "loop->loop", "up->../.."
    )
    read_only = plant(place / "ro", "file=ro", "d/f=rodf", "loop->/ro/loop")
    deep = plant(place / "deep", "f=deep")
    os.link(read_only / "file", top / "alias")
    plant(place / "canary", "f=untouched", "d/f=untouched")
    plant(top / "d" / "masked", "sub/f=masked")
    return (
        f"{top}::/",
        f"{read_only}::/ro::ro",
        f"{deep}::/d/masked",
        f"{deep}::/no/such/place::rw",
        f"{read_only / 'd'}::/d/again",
    )


def fingerprint(*places: Path) -> str:
    """Everything in PLACES but times of access."""
    told = hashlib.sha256()
    for place in places:
        for directory, below, files in sorted(os.walk(place)):
            for name in ["", *sorted(below), *sorted(files)]:
                path = Path(directory, name)
                status = path.lstat()
                told.update(repr((str(path), status.st_mode, status.st_uid)).encode())
                told.update(repr((status.st_mtime_ns, status.st_ctime_ns)).encode())
                told.update(
                    repr((status.st_nlink, os.listxattr(path, follow_symlinks=False))).encode()
                )
                if stat.S_ISREG(status.st_mode):
                    told.update(path.read_bytes())
    return told.hexdigest()


def hostile_overlay(place: Path) -> Overlay:
    """The core over `hostile_tree`, with room for few descriptors."""
    return make_overlay(*hostile_tree(place), descriptors=8)

"""What readlink returns: a target that resolves inside the namespace (SPEC.md section 5).

A consumer may be the host's kernel, which knows nothing of the guest's `/`; so an absolute target
becomes a relative one, and `..` stops at `/`. Where no `..` follows a name, arithmetic on the
directory's depth is enough: what lies on the way is either a directory or a link that is rebased
itself. A `..` behind a name goes to the parent of whatever that name leads to, so there the target
is walked through the namespace, links on the way included.
"""

import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

from overlayd.core.namespace import Namespace, Where
from overlayd.core.nodes import Node
from overlayd.errors import enametoolong
from overlayd.host import fs
from overlayd.table.guest_path import GuestPath

_MAX_LINKS = 40  # Linux gives up with ELOOP behind as many (path_resolution(7))
_TARGET_MAX = 4095  # PATH_MAX without its NUL (symlink(7))


class SymlinkRebaser:
    """Works out targets for one namespace."""

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace

    def rebase(self, parent: Node, target: bytes) -> bytes:
        """What readlink returns for a link in *parent* that stores *target*.

        A target that stays inside comes back unchanged. Raises ENAMETOOLONG where the rebased one
        no longer fits PATH_MAX.
        """
        here = self._namespace.guest_path(parent)
        absolute = target.startswith(b"/")
        steps = [step for step in target.split(b"/") if step not in (b"", b".")]
        if not absolute and b".." not in steps:
            return target
        climbs = 0
        while climbs < len(steps) and steps[climbs] == b"..":
            climbs += 1
        base = () if absolute else here[: max(len(here) - climbs, 0)]
        clamped = absolute or climbs > len(here)
        ending = b"/" if target.endswith((b"/", b"/.")) else b""
        if b".." in steps[climbs:]:
            walk = _Walk(self._namespace, base)
            walk.follow(steps[climbs:])
            base, steps, clamped = walk.position, [], clamped or walk.clamped
            if walk.dead_end is not None:
                # Never the last component: open(2) with O_CREAT would answer as for a new name.
                base, ending = walk.dead_end, b"/."
        if not clamped:
            return target
        return _relative(here, (*base, *steps[climbs:]), ending)


def _relative(here: GuestPath, there: GuestPath, ending: bytes) -> bytes:
    common = 0
    while common < min(len(here), len(there)) and here[common] == there[common]:
        common += 1
    steps = [b".."] * (len(here) - common) + list(there[common:])
    text = b"/".join(steps) or b"."
    if there:
        text += ending
    if len(text) > _TARGET_MAX:
        raise enametoolong()
    return text


@dataclass(slots=True)
class _Walk:
    """A walk from a directory of the namespace, given by its path; `..` stops at `/`.

    Where a name leads nowhere (yet), what follows is taken lexically, to see whether it would
    leave; the answer then ends at that name, so that whoever follows it fails there too.
    """

    namespace: Namespace
    base: GuestPath
    clamped: bool = False
    """Whether one of the target's own steps would have left through `/`."""
    position: GuestPath = ()
    dead_end: GuestPath | None = None
    """The first name on the way that is neither a directory nor a link to be followed."""
    _links: int = 0
    _trail: list[Where | None] = field(default_factory=list)
    """The directory at each depth of `position`, None where there is none."""

    def __post_init__(self) -> None:
        self._to_root()
        for name in self.base:
            self._enter(name, self._peek(name)[0])

    def follow(self, steps: Sequence[bytes]) -> None:
        """Take *steps*; the last one is not followed where it is a link itself."""
        # Whether a step is the target's own, or a link's on the way: those are rebased themselves.
        pending = [(step, True) for step in reversed(steps)]
        latest = self.position
        while pending:
            step, own = pending.pop()
            if step == b"..":
                self._climb(own)
                continue
            if own:
                latest = (*self.position, step)
            where, target = self._peek(step)
            if target is None or not pending or self._links >= _MAX_LINKS:
                self._enter(step, where)
                if where is None and pending and self.dead_end is None:
                    # Links without end: stop at the target's own step that led among them.
                    self.dead_end = self.position if target is None else latest
                continue
            self._links += 1
            if target.startswith(b"/"):
                self._to_root()
            parts = [part for part in target.split(b"/") if part not in (b"", b".")]
            pending.extend((part, False) for part in reversed(parts))

    def _to_root(self) -> None:
        self.position = ()
        self._trail = [self.namespace.where(self.namespace.nodes.root)]

    def _enter(self, name: bytes, where: Where | None) -> None:
        self.position += (name,)
        self._trail.append(where)

    def _climb(self, own: bool) -> None:
        if not self.position:
            self.clamped = self.clamped or own
            return
        self.position = self.position[:-1]
        self._trail.pop()

    def _peek(self, name: bytes) -> tuple[Where | None, bytes | None]:
        """What *name* is here: (the directory, None), (None, a link's target) or (None, None)."""
        at = self._trail[-1]
        if at is None:
            return None, None
        try:
            found = self.namespace.child(at, name)
            if found.status is None:
                return Where(found.position, None, None), None
            self.namespace.consent_to_enter(found.status)
            if found.source is not None:
                is_dir = found.status.is_dir
                source = Where(found.position, found.mount, found.source)
                return (source if is_dir else None), None
            assert at.fd is not None
            if found.status.is_dir:
                return Where(found.position, found.mount, fs.open_child(at.fd, name)), None
            if stat.S_ISLNK(found.status.mode):
                return None, fs.read_link(fs.open_child(at.fd, name))
        except OSError:
            pass
        return None, None

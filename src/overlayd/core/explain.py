"""Why a guest path is what it is: for `overlayd explain`."""

import stat
from dataclasses import dataclass

from overlayd.core.access import Access, Held
from overlayd.core.assembly import Attachment
from overlayd.core.namespace import Namespace
from overlayd.core.nodes import Node
from overlayd.errors import OverlaydError, UsageError, eloop
from overlayd.host import fs
from overlayd.table.guest_path import GuestPath, parse_guest_path, printable, show

_MAX_LINKS = 40
_KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


@dataclass(frozen=True, slots=True)
class Explanation:
    """What provides a guest path, and what may be done with it."""

    asked: str
    guest: str
    """The same object's path without links on the way."""
    kind: str
    provider: str | None
    """The preopen, as a `--dir` value; None for a synthetic directory."""
    host: str | None
    """The host path, for people: overlayd itself never uses it."""
    writable: bool
    reason: str


def explain_text(
    namespace: Namespace, access: Access, text: str, visited: list[Node]
) -> Explanation:
    """Explain the guest path *text*, as `explain` does.

    Raises UsageError for what is no guest path, OverlaydError where the namespace has none such.
    """
    try:
        path = parse_guest_path(text)
    except ValueError as error:
        raise UsageError(
            f"{printable(text) or repr(text)}: {printable(str(error))};"
            " write it out as an absolute path without '..'"
        ) from None
    try:
        return explain(namespace, access, path, visited)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise OverlaydError(f"{printable(text)}: {reason} in the namespace") from None


def explain(
    namespace: Namespace, access: Access, path: GuestPath, visited: list[Node] | None = None
) -> Explanation:
    """Explain *path*, following links on the way to it but not at its end.

    The nodes on the way go into *visited*: nobody else may need them. Raises OSError (ENOENT,
    ENOTDIR, ELOOP) where the namespace has no such path.
    """
    walker = _Walker(namespace, [] if visited is None else visited)
    node = walker.walk(path)
    mount = namespace.mounts_of(node)[0] if node.parent is not None else node.mount
    guest = namespace.guest_path(node)
    fd = namespace.where(node).fd if stat.S_ISDIR(node.file_type) else namespace.open_path(node)
    denied = access.judge(Held(node, fd))
    provider = host = None
    if mount is not None:
        preopen = mount.preopen
        provider = str(preopen)
        below = guest[len(preopen.guest) :]
        root = _host_path(mount)
        host = printable(root.rstrip("/") if below else root) + (show(below) if below else "")
    reason = denied.reason if denied is not None else "its preopen is writable"
    kind = _KINDS.get(node.file_type, "unknown")
    return Explanation(show(path), show(guest), kind, provider, host, denied is None, reason)


def _host_path(mount: Attachment) -> str:
    """The source's path; where it was given as a relative one, where it lies now."""
    host = mount.preopen.host
    return host if host.startswith("/") else mount.source.present_host()


class _Walker:
    def __init__(self, namespace: Namespace, visited: list[Node]) -> None:
        self._namespace = namespace
        self._visited = visited
        self._links = 0

    def walk(self, path: GuestPath) -> Node:
        space = self._namespace
        node = space.nodes.root
        pending = list(reversed(path))
        while pending:
            name = pending.pop()
            if name == b"..":
                node = node.parent or node
                continue
            child, _ = space.look_up(node, name)
            self._visited.append(child)
            if child.file_type != stat.S_IFLNK or not pending:
                node = child
                continue
            self._links += 1
            if self._links > _MAX_LINKS:
                raise eloop()
            target = fs.read_link(space.open_path(child))
            if target.startswith(b"/"):
                node = space.nodes.root
            pending.extend(p for p in reversed(target.split(b"/")) if p not in (b"", b"."))
        return node

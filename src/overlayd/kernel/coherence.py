"""How long the kernel may keep each answer, and what it believes since the daemon's own operations.

In the mode `coherent` the kernel keeps what is watched until `changes` tells it otherwise. What it
was told, or did itself through this mount, is noted here, so that the events which that caused can
be told from the host's: `Node.told_ns` says which state of an inode the kernel knows, and for the
names that own operations made and took away, a belief says what the kernel takes them for. Beliefs
are kept until the events that were queued after them have been dealt with.

Answers given on the event loop are consistent with the watches: nothing is dealt with between
asking the host and answering. Those from a thread hold for a short time only.
"""

import os

import trio

from overlayd.core.listings import Entry
from overlayd.core.names import Renamed
from overlayd.core.namespace import Namespace
from overlayd.core.nodes import Node
from overlayd.core.numbers import DIRECTORY
from overlayd.core.types import Attrs
from overlayd.errors import estale
from overlayd.kernel.cache import LASTING, SHORT, CachePolicy
from overlayd.kernel.watching import Watcher
from overlayd.kernel.wire import Validity

ABSENT = 0
"""What is believed of a name that does not exist; else the number of what it is."""

NOT_RELIED_ON = 0
"""For `Node.told_ns`: the kernel keeps no attributes for longer than a moment."""
WRITTEN_PAST_US = 0.05
"""Seconds at most, for the attributes of what guests may write to without our hearing of it.

The kernel has them out of date itself after each write, size and times, and the access time after
each read and mmap(2) (fs/fuse/passthrough.c). It is the host's changes that show after so long.
"""
MAPPED_PAST_US = 0.0
"""The same where guests may store to a mapping: of that it notices nothing, and nobody hears of an
msync(2), since what is mapped is the host's own file (`backing_file_mmap` in fs/backing-file.c)."""
ONLY_CTIME = -2
"""For the same: it knows itself that the ctime has changed, and takes the rest for right."""

_MOST_BELIEFS = 10_000
"""Without them the kernel is told more than it need be: better than to keep ever more."""


class Beliefs:
    """What the kernel takes names for, and which inodes were changed, since own operations."""

    def __init__(self) -> None:
        self.names: dict[tuple[int, bytes], int] = {}
        self.inodes: set[int] = set()

    def believe(self, parent: int, name: bytes, number: int) -> None:
        """*name* in *parent*, which was changed by that, is *number* now."""
        self.names[parent, name] = number
        if len(self.names) > _MOST_BELIEFS:
            self._clear()
        self.note(parent)

    def note(self, number: int) -> None:
        """Inode *number* was changed."""
        self.inodes.add(number)
        if len(self.inodes) > _MOST_BELIEFS:
            self._clear()

    def _clear(self) -> None:
        """Let go of all where nothing comes of it: what is not watched causes no events."""
        self.names.clear()
        self.inodes.clear()


class Coherence:
    """Says how long an answer holds; keeps in mind what the kernel was told."""

    def __init__(self, namespace: Namespace, policy: CachePolicy) -> None:
        self._namespace = namespace
        self.policy = policy
        self.watcher = Watcher(namespace)
        self.present = Beliefs()
        """Whose events may still be to come."""
        self.former = Beliefs()
        """Whose events are being dealt with."""
        self.written_past_us: set[Node] = set()
        """Files that are open so that guests may write to them without our hearing of it."""
        self.mapped_past_us: set[Node] = set()
        """Those among them that were opened so that guests may store to a mapping, too."""
        self.doubtful: set[int] = set()
        """Inodes whose attributes the kernel is to be told to forget."""
        self.doubt = trio.Event()
        """Set once there are any, and it is known on the event loop."""
        self._sent_back: set[int] = set()
        """Inodes whose opening was answered so that the kernel looks their names up once more."""
        self.strayed: set[Node] = set()
        """Open files that the host took away from the name they were known by."""

    def turn(self) -> None:
        """The events of all own operations so far have been read and are dealt with now."""
        self.former, self.present = self.present, Beliefs()

    # -- how long -------------------------------------------------------------------------------

    def names_in(self, number: int) -> float:
        """Seconds for names, absent ones too, that are looked up in directory *number* next.

        To be asked before the host is. Raises ESTALE.
        """
        return self.names_of(self._namespace.nodes.get(number))

    def names_of(self, directory: Node) -> float:
        """The same for the node of a directory."""
        space, policy, mount = self._namespace, self.policy, directory.mount
        if mount is not None and mount.overlaps:
            return 0.0
        if policy.watches and self.watcher.may_rely_on(directory) and not space.is_patient():
            return LASTING  # as most often
        if space.may_block(directory):
            return policy.slow_seconds
        if not policy.watches:
            return policy.seconds
        if space.is_patient():
            return SHORT
        if directory.key is None:
            return LASTING if _is_made_up(directory) else SHORT
        return self.watcher.watch(directory)

    def streamed(self, handle: int) -> float:
        """Seconds for names that are listed next through the stream *handle*."""
        opened = self._namespace.handles.get(handle)
        seconds = self.names_of(opened.node)
        position = opened.node.position
        if seconds > SHORT and position is not None and opened.fd is not None:
            # Another directory may be at this place by now than the one the stream is open on.
            return seconds if self._namespace.is_open_on(opened) else SHORT
        return seconds

    def prepare(self, number: int) -> float:
        """The attributes of *number* are asked for next: watch what tells of their changes.

        Seconds as `validity` wants them.
        """
        if not self.policy.watches:
            return self.policy.seconds
        if self._namespace.is_patient():
            return SHORT
        node = self._namespace.nodes.get(number)
        if node.file_type == DIRECTORY:
            return self.names_of(node)
        if node.parent is None:
            return SHORT
        near = self.names_of(node.parent)
        if node.handles and node.told_ns == NOT_RELIED_ON:
            # It is asked for by what is open: the host may have moved it unseen.
            return near if self._namespace.is_still_at(node, node.places[0]) else SHORT
        return near

    def validity(self, attrs: Attrs, near: float) -> tuple[float, float]:
        """Seconds for a name that is *attrs*, and for these, which the kernel is told with this.

        *near* is what `names_in` said, before, of the directory in which they were found.
        """
        if attrs.volatile:
            return 0.0, 0.0
        node = self._namespace.nodes.get(attrs.number)
        near, seconds, node.told_ns = self._judge(node, attrs, near, listed=False)
        return near, seconds

    def _judge(self, node: Node, attrs: Attrs, near: float, *, listed: bool) -> Validity:
        space, policy = self._namespace, self.policy
        if attrs.volatile:
            return 0.0, 0.0, node.told_ns
        if space.may_block(node):
            # Nobody was asked for what is mounted there by who looked up its name.
            seconds = policy.slow_seconds if space.is_patient() else 0.0
            return min(near, policy.slow_seconds), seconds, node.told_ns
        if not policy.watches:
            return near, self._past_us(node, policy.seconds), node.told_ns
        if near != LASTING and space.is_patient():
            seconds = SHORT
        elif node.file_type == DIRECTORY:
            seconds = self._of_directory(node, near)
        elif attrs.size != attrs.stat.size:  # a link whose target rests on where others lie
            seconds = SHORT
        elif attrs.stat.nlink > 1 or node.other_places is not None or _is_attached(node):
            seconds = self._by_other_names(node, listed)
        else:
            seconds = SHORT if node in self.strayed else near
        seconds = self._past_us(node, seconds)
        return near, seconds, attrs.stat.ctime_ns if seconds == LASTING else NOT_RELIED_ON

    def _past_us(self, node: Node, seconds: float) -> float:
        """*seconds*, or less where guests may change *node* without our hearing of it."""
        if node not in self.written_past_us:
            return seconds
        return min(seconds, MAPPED_PAST_US if node in self.mapped_past_us else WRITTEN_PAST_US)

    def validities(self, entries: list[Entry], near: float) -> list[Validity]:
        """The same for each of *entries* of a listing, which is to cost little; see `listed`."""
        watches, strayed, written = self.policy.watches, self.strayed, self.written_past_us
        seconds = near if watches else self.policy.seconds
        if watches and near != LASTING and self._namespace.is_patient():
            seconds = SHORT
        lasts = watches and seconds == LASTING
        answers: list[Validity] = []
        for _, attrs, _, node, is_plain in entries:
            if node is None:  # what a listing says of `.` and `..` the kernel does not keep
                answers.append((0.0, 0.0, NOT_RELIED_ON))
                continue
            status = attrs.stat
            by_one_name = is_plain and status.nlink == 1 and node.file_type != DIRECTORY
            if by_one_name and node not in strayed and node not in written:
                told_ns = status.ctime_ns if lasts else NOT_RELIED_ON if watches else node.told_ns
                answers.append((near, seconds, told_ns))
            else:
                answers.append(self._judge(node, attrs, near, listed=True))
        return answers

    def _of_directory(self, node: Node, near: float) -> float:
        if node.key is None:
            return LASTING if _is_made_up(node) else SHORT
        if self.watcher.may_rely_on(node):
            return LASTING
        return near if near != LASTING else SHORT

    def _by_other_names(self, node: Node, listed: bool) -> float:
        """Of a file that may be changed by a name in a directory that is not watched."""
        if self.watcher.may_rely_on(node):
            return LASTING
        if listed:
            return SHORT
        # The host was asked before it was watched: that counts from the next time on.
        seconds = self.watcher.watch(node)
        return seconds if seconds != LASTING else SHORT

    def may_mean_another_name(self, number: int) -> bool:
        """Whether the kernel, which says no more than *number*, may have kept which name it means.

        It matters where the file has names in several mounts. Without a cache the name that was
        looked up last is the one that is meant.
        """
        if not self.policy.watches and not self.policy.seconds:
            return False
        node = self._namespace.nodes.get(number)
        if node.other_places is None:
            return False
        first, *others = self._namespace.mounts_of(node)
        return any(mount is not first for mount in others)

    # -- what the kernel knows ------------------------------------------------------------------

    def looked_up(self, parent: int, name: bytes, number: int) -> None:
        """The kernel is told that *name* in *parent* is *number*."""
        for beliefs in (self.present, self.former):
            if beliefs.names and (parent, name) in beliefs.names:
                beliefs.names[parent, name] = number
        if self.strayed and number:
            self.strayed.discard(self._namespace.nodes.get(number))

    def made(self, parent: int, name: bytes, number: int) -> None:
        """An own operation made *name* in *parent*, and tells the kernel that it is *number*."""
        if self.policy.watches:
            self._believe(parent, name, number)
            self._note(number)

    def removed(self, parent: int, name: bytes) -> None:
        """An own operation removed *name* in *parent*, as the kernel knows."""
        if self.policy.watches:
            self._believe(parent, name, ABSENT)

    def renamed(self, old: tuple[int, bytes], new: tuple[int, bytes], renamed: Renamed) -> None:
        """An own operation moved *old* to *new*, or exchanged them, as the kernel knows."""
        if not self.policy.watches:
            return
        self._believe(*new, renamed.moved)
        self.touched(renamed.moved)
        if renamed.exchanged is None:
            self._believe(*old, ABSENT)
        else:
            self._believe(*old, renamed.exchanged)
            self.touched(renamed.exchanged)

    def changed(self, number: int) -> None:
        """An own operation changes the content of *number*, whose times and size the kernel then
        takes for out of date itself."""
        if self.policy.watches:
            self._note(number)
            self._outdate(number)

    def touched(self, number: int) -> None:
        """An own operation changes the ctime of *number*, as the kernel knows."""
        if self.policy.watches:
            self._note(number)
            node = self._namespace.nodes.peek(number)
            if node is not None and node.told_ns:
                node.told_ns = ONLY_CTIME

    def set(self, number: int) -> None:
        """An own operation changes inode *number* and tells the kernel how."""
        if self.policy.watches:
            self._note(number)

    def opened(self, handle: int, flags: int) -> bool:
        """A file was opened with *flags*; whether what the kernel has cached of it is still good.

        Raises ESTALE where it has changed and nothing told: through a name that the host gave it
        where nothing is watched, or a moment ago. The kernel then looks its name up once more, and
        opens what it finds; that is asked for one time.
        """
        if not self.policy.watches:
            return False
        opened = self._namespace.handles.get(handle)
        node = opened.node
        if flags & os.O_TRUNC:
            self.changed(node.number)
        told = node.told_ns
        if told is None or told <= 0 or opened.fd is None:
            return told != NOT_RELIED_ON
        if self._namespace.status(opened.fd).ctime_ns == told:
            self._sent_back.discard(node.number)
            return True
        node.told_ns = NOT_RELIED_ON
        if node.number not in self._sent_back:
            self._sent_back.add(node.number)
            raise estale()
        self._sent_back.discard(node.number)
        self.doubtful.add(node.number)  # it is being written to all the time
        return False

    def opened_past_us(self, node: Node) -> None:
        """*node* was opened so that a guest may write to it without our hearing of it.

        Until the last of them has closed it, the kernel asks again and again: what has changed was
        changed by them, as it knows, or by the host, and the host's events do not tell which.
        """
        self.written_past_us.add(node)
        if self.policy.watches:
            if node.told_ns:
                self.doubtful.add(node.number)
            node.told_ns = NOT_RELIED_ON

    def opened_to_be_mapped(self, handle: int) -> None:
        """Whoever has *handle* may store to a mapping, if it is one for that.

        What was told before can be kept all the same: mmap(2) has the kernel ask for the access
        time, and with it for everything. That the handle is closed does not end the mapping.
        """
        opened = self._namespace.handles.get(handle)
        if opened.may_be_mapped:
            self.mapped_past_us.add(opened.node)

    def settle_doubts(self) -> None:
        """Have somebody tell the kernel what is doubtful; to be called on the event loop."""
        if self.doubtful:
            self.doubt.set()

    def watch(self, number: int) -> bool:
        """Watch *number* itself; whether it is watched now."""
        node = self._namespace.nodes.get(number)
        if not self.policy.watches or self._namespace.is_patient():
            return False
        if self.watcher.may_rely_on(node):
            return True
        if self._namespace.may_block(node) or self._namespace.is_volatile(node):
            return False
        return self.watcher.watch(node) == LASTING

    def written(self, handle: int) -> None:
        """What *handle* is open on is written to."""
        if self.policy.watches:
            self.changed(self._namespace.handles.get(handle).node.number)

    def released(self, handle: int) -> None:
        """*handle* is closed, which the host tells of where it was opened for writing."""
        opened = self._namespace.handles.get(handle)
        if opened.writable:
            if opened.way is not None and opened.way.writers == 1:
                self._no_more_past_us(opened.node)
                if opened.fd is not None:
                    self.watcher.heed(opened.node, opened.fd)
            if self.policy.watches:
                self._note(opened.node.number)

    def _believe(self, parent: int, name: bytes, number: int) -> None:
        self.present.believe(parent, name, number)
        former = self.former.names
        if former and (parent, name) in former:
            former[parent, name] = number
        self._outdate(parent)

    def _note(self, number: int) -> None:
        self.present.note(number)

    def _outdate(self, number: int) -> None:
        """The kernel knows by itself that what it has of *number* is out of date."""
        node = self._namespace.nodes.peek(number)
        if node is not None and node.told_ns:
            node.told_ns = None

    def listed(self, entries: list[Entry], validities: list[Validity]) -> None:
        """The kernel took the first of *entries*, all or not, and was told *validities*."""
        for (_, _, _, node, _), (_, _, told_ns) in zip(entries, validities, strict=False):
            if node is not None:
                node.told_ns = told_ns
        if self.present.names or self.former.names or self.strayed:
            for entry in entries:
                if entry.node is not None:
                    assert entry.node.parent is not None
                    self.looked_up(entry.node.parent.number, entry.name, entry.node.number)

    def forgotten(self, node: Node) -> None:
        """The kernel knows nothing of *node* any more."""
        self.watcher.forget(node)
        self.strayed.discard(node)
        self._sent_back.discard(node.number)
        self._no_more_past_us(node)

    def _no_more_past_us(self, node: Node) -> None:
        self.written_past_us.discard(node)
        self.mapped_past_us.discard(node)


def _is_made_up(directory: Node) -> bool:
    """Whether the mount table alone says what *directory* is, whatever the host comes to have.

    Below a source, the host may make a directory where there is only a synthetic one now.
    """
    at: Node | None = directory
    while at is not None:
        if at.mount is not None:
            return False
        at = at.parent
    return True


def _is_attached(node: Node) -> bool:
    """Whether *node*, a file, is a mount point of its own."""
    position = node.parent.position if node.parent is not None else None
    return position is not None and node.name in position.children

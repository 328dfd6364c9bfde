"""One mount's life: mount, say so, serve, and leave.

Clean exit: SIGTERM and SIGINT, the end of the process that *lifeline* belongs to, and an
unmount from outside. The mount is then detached at once, busy or not; what guests have under way
is answered for up to `_GRACE_SECONDS`. Crash: an exception out of the request loop is a defect of
overlayd; the mount stays and answers ENOTCONN, because a directory that suddenly is empty would be
worse for whoever writes into it. The next `mount` on that target clears it.
"""

import gc
import logging
import os
import resource
import shutil
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import NamedTuple

from overlayd.kernel import libraries as libraries
from overlayd.kernel import wire

# isort: split
# What comes from the room above has to be loaded before this.
import pyfuse3
import trio

from overlayd.core.overlay import Overlay
from overlayd.errors import OverlaydError
from overlayd.host import device, libc
from overlayd.host.mounts import Mount, mount_at, read_mounts, unique_id
from overlayd.host.propagation import may_mount
from overlayd.host.sources import Source
from overlayd.kernel.changes import HostChanges
from overlayd.kernel.direct import answer_directly
from overlayd.kernel.forgetting import Forgetter
from overlayd.kernel.loop import RequestLoop
from overlayd.kernel.notifications import Notifier
from overlayd.kernel.operations import Operations
from overlayd.kernel.passthrough import insist, obstacle
from overlayd.service.asking import Explainer
from overlayd.service.control import Control, open_socket
from overlayd.service.mount_options import fuse_options, target_mode
from overlayd.service.notify import NOBODY, ServiceManager, feed_watchdog
from overlayd.service.plan import MountPlan
from overlayd.service.registry import Record, Registration, refuse_place_inside
from overlayd.service.reload import Reloader
from overlayd.service.status import Status
from overlayd.service.target import prepare_target, take_down
from overlayd.table.guest_path import printable

log = logging.getLogger(__name__)

_GRACE_SECONDS = 5.0
_MAX_TASKS = 256
_READ_AHEAD_KIB = 512
"""In requests as large as this a file read from end to end costs least; the kernel's own is 128."""
_STOP_SIGNALS = frozenset((signal.SIGTERM, signal.SIGINT))


def serve(
    plan: MountPlan,
    ready: Callable[[], None],
    lifeline: int | None = None,
    manager: ServiceManager = NOBODY,
) -> None:
    """Mount *plan*, call *ready* once the namespace answers, and serve until it is to end.

    *lifeline* is the read end of a pipe whose other end closes when the owner dies; *manager* is
    told how it goes. Raises OverlaydError, leaving no mount behind, where it cannot be mounted.
    """
    gc.freeze()  # the collector need not look through modules again while requests wait
    os.umask(0)  # the kernel has applied the caller's; ours must not come on top
    # What a guest writes is subject to the host's quotas and reserved blocks. Nobody's file system
    # uid takes this capability away, and it would lift both.
    libc.drop_capability(libc.CAP_SYS_RESOURCE)
    overlay = Overlay(plan.table, plan.sources, plan.rules, _raise_descriptor_limit())
    prepare_target(
        plan.target,
        replace=plan.replace,
        allow_nonempty="nonempty" in plan.mount_options,
        create_mode=target_mode(plan.mount_options),
    )
    refuse_place_inside(plan.target)
    signals = _take_over_signals()
    try:
        with _session(plan, overlay, manager) as live:
            trio.run(_serve, live, plan.target, ready, lifeline, signals, manager)
    except BaseExceptionGroup as group:  # what is raised in an except* comes out as a group again
        planned, others = group.split(OverlaydError)
        if planned is None or others is not None:
            raise
        raise _first(planned) from None
    finally:
        for number in signals:  # Python's own end gives up its handlers before its threads
            signal.signal(number, signal.SIG_IGN)


def _take_over_signals() -> frozenset[signal.Signals]:
    """The signals that end the serving or reload, held back until somebody listens for them.

    Between the mount and the loop that serves it, one would end this process and leave a dead
    mount. One that is ignored would be lost, as SIGINT is for what a script starts in the
    background; SIGHUP stays ignored where it is, since that is what nohup(1) is for.
    """
    signals = set(_STOP_SIGNALS)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.add(signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    for number in signals:
        signal.signal(number, _ends_already)
    return frozenset(signals)


def _ends_already(number: int, frame: object) -> None:
    """One more signal after that loop: worker threads do not hold it back, and by default it would
    make a clean end look like a crash."""


def _first(group: BaseExceptionGroup[OverlaydError]) -> OverlaydError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, OverlaydError)
    return error


def _raise_descriptor_limit() -> int:
    """Use every descriptor we may; how many of them the cache of directories gets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return max(32, min(soft // 4, 4096))


# -- the session --------------------------------------------------------------------------------


class _Live(NamedTuple):
    """A mount that is to be served."""

    mount: Mount
    control: Control
    listener: socket.socket
    reloader: Reloader
    notifier: Notifier
    forgetter: Forgetter
    changes: HostChanges
    operations: Operations
    loop: RequestLoop


@contextmanager
def _session(plan: MountPlan, overlay: Overlay, manager: ServiceManager) -> Iterator[_Live]:
    """The FUSE session, the record of it and its socket, taken down at the end of the block."""
    operations = Operations(overlay, plan.cache, plan.errors, plan.passthrough)
    loop = RequestLoop(len(os.sched_getaffinity(0)), operations.workers)
    operations.away, operations.soon = loop.away, loop.soon
    loop.install()
    _mount(plan, operations)
    plan.sources.clear()  # the frames above hold the plan to the end
    mount, identity = mount_at(plan.target), unique_id(plan.target)
    registration = None
    crashed = False
    try:
        if mount is None:
            raise OverlaydError(f"target {printable(plan.target)} vanished while it was mounted")
        overlay.namespace.own_device = mount.dev
        registration = Registration(_record(plan, mount))
        notifier = Notifier(device.find_session())
        changes = HostChanges(overlay.namespace, operations.coherence, notifier)
        forgetter = Forgetter(overlay.namespace, operations.crowded, notifier)
        record = partial(_update_record, registration, mount)
        reloader = Reloader(plan, overlay, operations, changes, record, manager=manager)
        control = _control(overlay, operations, reloader, mount)
        with open_socket(registration.path) as listener:
            yield _Live(
                *(mount, control, listener, reloader, notifier, forgetter, changes),
                *(operations, loop),
            )
    except BaseExceptionGroup as group:
        crashed = group.split(OverlaydError)[1] is not None
        raise
    finally:
        # Ours may be gone since long, and the next one on the target may have got all its numbers.
        if mount is not None and not crashed and unique_id(plan.target) == identity:
            with suppress(OverlaydError):  # which `_Stopper` has told
                take_down(plan.target, mount)
        wire.end_moves()
        pyfuse3.close(unmount=False)
        if registration is not None:
            registration.remove()
        if plan.remove_target and not crashed:
            with suppress(OSError):
                os.rmdir(plan.target)


def _control(overlay: Overlay, operations: Operations, reloader: Reloader, mount: Mount) -> Control:
    """What answers on the control socket."""
    control = Control(relieve=overlay.namespace.cache.shrink)
    status = Status(lambda: reloader.plan, overlay, operations, mount.dev)
    control.verbs.update(
        reload=reloader.on_request, status=status.verb, explain=Explainer(overlay).verb
    )
    return control


def _update_record(registration: Registration, mount: Mount, plan: MountPlan) -> None:
    registration.update(_record(plan, mount))


def _record(plan: MountPlan, mount: Mount) -> Record:
    return Record(
        target=os.fsdecode(mount.mount_point),
        device=mount.dev,
        pid=os.getpid(),
        preopens=[str(preopen) for preopen in plan.table.preopens],
    )


def _mount(plan: MountPlan, operations: Operations) -> None:
    """Mount through libfuse; what it prints about a failure becomes our one line."""
    _check_device()
    insist(plan.passthrough, obstacle())
    hosts = [source.present_host() for source in plan.sources]
    options = fuse_options(plan.mount_options, hosts, allow_other=plan.allow_other)
    with open(os.memfd_create("libfuse"), "w+b") as said, _stderr_into(said.fileno()):
        depth = _stack_depth(plan.sources)
        wire.want(passthrough=plan.may_pass, stack_depth=depth, set_id="suid" in options)
        try:
            pyfuse3.init(operations, os.path.abspath(plan.target), options)
        except (RuntimeError, UnicodeEncodeError) as error:
            said.seek(0)
            words = " ".join(said.read().decode(errors="replace").split())
            raise OverlaydError(
                f"{printable(plan.target)} cannot be mounted: {words or error}"
            ) from None


def _stack_depth(sources: Sequence[Source]) -> int:
    """On how many file systems files may lie that the kernel is to read and write past us.

    With more than one, overlayfs does not take our mount for a layer.
    """
    ids = {source.stat.mount_id for source in sources}
    return 2 if any(mount.is_stacked for mount in read_mounts() if mount.mount_id in ids) else 1


def _check_device() -> None:
    """Say what is missing before libfuse does so in its own words."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise OverlaydError(
            "no FUSE device: /dev/fuse is missing; load the module (modprobe fuse),"
            " or give the container the device (--device /dev/fuse)"
        ) from None
    except OSError as error:
        raise OverlaydError(
            f"/dev/fuse cannot be opened: {(error.strerror or '').lower()};"
            " run as root, or give the container the device (--device /dev/fuse)"
        ) from None
    if os.geteuid() == 0 and not may_mount():
        raise OverlaydError(
            "mounting needs CAP_SYS_ADMIN, which this process lacks although it is root;"
            " give the container the capability (--cap-add SYS_ADMIN)"
        )
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        raise OverlaydError(
            "mounting needs root, or fusermount3 (Debian package fuse3), which is not installed"
        )


@contextmanager
def _stderr_into(fd: int) -> Iterator[None]:
    saved = os.dup(2)
    os.dup2(fd, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


# -- serving ------------------------------------------------------------------------------------


async def _serve(
    live: _Live,
    target: str,
    ready: Callable[[], None],
    lifeline: int | None,
    signals: frozenset[signal.Signals],
    manager: ServiceManager,
) -> None:
    async with trio.open_nursery() as nursery:
        stop = _Stopper(live, target, nursery.cancel_scope, manager)
        nursery.start_soon(live.control.serve, live.listener)
        nursery.start_soon(live.forgetter.run)
        nursery.start_soon(live.changes.run)
        nursery.start_soon(stop.on_signal, signals & _STOP_SIGNALS)
        if signal.SIGHUP in signals:
            nursery.start_soon(live.reloader.on_signal, signal.SIGHUP)
        if lifeline is not None:
            nursery.start_soon(stop.on_hangup, lifeline)
        polls = len(os.sched_getaffinity(0)) > 1
        live.loop.reads_ahead = answer_directly(live.operations, polls=polls)
        nursery.start_soon(_announce, live, target, ready, manager)
        await pyfuse3.main(max_tasks=_MAX_TASKS)
        await live.operations.drained(_GRACE_SECONDS)
        nursery.cancel_scope.cancel()


async def _announce(
    live: _Live, target: str, ready: Callable[[], None], manager: ServiceManager
) -> None:
    """Call *ready* when a request has gone all the way through the kernel to us and back."""
    try:
        await trio.to_thread.run_sync(os.stat, target, abandon_on_cancel=True)
    except OSError as error:
        raise OverlaydError(
            f"{printable(target)} was mounted but does not answer: {error.strerror}"
        ) from None
    device.raise_read_ahead(live.mount.dev, _READ_AHEAD_KIB)  # the answer to INIT has set it
    log.info("serving %s", printable(target))
    log.debug("replies amended on the wire: %s", wire.state())
    passthrough = live.operations.passthrough
    insist(passthrough.mode, passthrough.obstacle)
    log.info("open files are read and written %s", passthrough)
    ready()
    live.changes.adjust()
    await trio.to_thread.run_sync(manager.ready, f"Serving {target}")
    await feed_watchdog(manager, target)


class _Stopper:
    """Ends the serving: the mount goes at once, requests under way get a little time."""

    def __init__(
        self, live: _Live, target: str, scope: trio.CancelScope, manager: ServiceManager
    ) -> None:
        self._mount = live.mount
        self._notifier = live.notifier
        self._target = target
        self._scope = scope
        self._manager = manager

    async def on_signal(self, stop_signals: frozenset[signal.Signals]) -> None:
        """Wait for one of the signals that end a daemon, which are blocked so far."""
        with trio.open_signal_receiver(*stop_signals) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals)
            try:
                async for number in signals:
                    await self._stop(signal.Signals(number).name)
            finally:
                signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals)

    async def on_hangup(self, lifeline: int) -> None:
        """Wait for the process at the other end of *lifeline* to go."""
        await trio.lowlevel.wait_readable(lifeline)
        await self._stop("the end of the process it was mounted for")

    async def _stop(self, reason: str) -> None:
        log.info("unmounting %s: %s", printable(self._target), reason)
        self._scope.deadline = trio.current_time() + _GRACE_SECONDS
        try:
            await trio.to_thread.run_sync(self._take_down)
        except OverlaydError as error:
            log.error("%s", error)
        await self._notifier.stop()
        pyfuse3.terminate()

    def _take_down(self) -> None:
        self._manager.stopping(_GRACE_SECONDS + 1)
        take_down(self._target, self._mount)

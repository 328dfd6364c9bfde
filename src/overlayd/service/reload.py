"""Reloading: another table and other settings for a live mount, checked before anything changes."""

import logging
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import trio

from overlayd.core.assembly import Survey, find_kept, survey
from overlayd.core.handles import Handle
from overlayd.core.overlay import Overlay
from overlayd.core.prospect import irrevocable, written_past_us
from overlayd.core.remount import Outdated
from overlayd.errors import OverlaydError, UsageError
from overlayd.kernel.changes import HostChanges
from overlayd.kernel.operations import Operations
from overlayd.kernel.passthrough import insist
from overlayd.service.notify import NOBODY, ServiceManager
from overlayd.service.plan import MountPlan
from overlayd.table.difference import Difference, compare_tables
from overlayd.table.guest_path import printable

log = logging.getLogger(__name__)

_SOURCES_SECONDS = 10.0
_NO_ANSWER = (
    f"a source does not answer within {_SOURCES_SECONDS:g} s;"
    " take it out of the configuration, or see to its server"
)
_SECONDS = 5.0
"""How long requests and kernel calls that are under way are waited for."""
_THREADS = 4


class Reloader:
    """Applies what the configuration says now; one at a time."""

    def __init__(
        self,
        plan: MountPlan,
        overlay: Overlay,
        operations: Operations,
        changes: HostChanges,
        record: Callable[[MountPlan], None],
        manager: ServiceManager = NOBODY,
    ) -> None:
        """*record* writes down the plan that is in force, for others to see."""
        self.plan = plan
        """What is in force."""
        self._record = record
        self._manager = manager
        self._overlay = overlay
        self._operations = operations
        self._changes = changes
        self._lock = trio.Lock()
        # Not those that the rest of the daemon has in common: a thread that waits for a source is
        # left behind, and with enough of them not even the end would find one.
        self._source_threads = trio.CapacityLimiter(_THREADS)
        self._limiters: dict[int, trio.CapacityLimiter] = {}

    async def reload(self) -> Difference:
        """Read the configuration again and apply the difference; what that is.

        Raises OverlaydError, with everything as it was, where the new configuration is wrong. Once
        this returns, no write goes through a handle on what has become read-only, except one that
        a source has kept waiting for longer than `_SECONDS`.
        """
        async with self._lock:
            plan, wanted = await self._ask_sources()
            insist(plan.as_mounted(self.plan).passthrough, self._operations.passthrough.wanting)
            difference = self._compare(plan, wanted)
            with self._holding_back():
                await self._refuse_irrevocable(wanted)
                outdated = self._overlay.remount(wanted)
            others = (plan.cache, plan.rules) != (self.plan.cache, self.plan.rules)
            self._take_over(plan)
            await self._tell_kernel(outdated)
            if others:
                await self._changes.forget_everything()
            # Requests that had begun go by the former table until they end.
            drained = await self._operations.drained(_SECONDS)
            await self._tell_kernel(self._overlay.settle())
            await self._revoke()
            if not drained or not await self._operations.drained(_SECONDS):
                log.warning("requests from before the reload still wait for their source")
            return difference

    async def on_request(self, _request: Mapping[str, Any]) -> object:
        """The control socket's verb `reload`."""
        log.info("reloading, as asked on the control socket")
        return (await self._reload_and_log()).as_json()

    async def on_signal(self, number: signal.Signals) -> None:
        """Reload for every signal *number* that comes; what is wrong is only logged."""
        with trio.open_signal_receiver(number) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
            async for _ in signals:
                log.info("reloading: %s", number.name)
                try:
                    await self._reload_and_log()
                except OverlaydError:
                    continue
                except Exception:  # out of here it would end the mount
                    log.exception("reload: unexpected")

    async def _reload_and_log(self) -> Difference:
        await trio.to_thread.run_sync(self._manager.reloading)
        status = f"Serving {self.plan.target}"
        try:
            difference = await self.reload()
        except OverlaydError as error:
            log.error("not reloaded, nothing has changed: %s", error)
            status += f"; not reloaded: {error}"
            raise
        finally:
            await trio.to_thread.run_sync(self._manager.ready, status)
        for line in difference.describe():
            log.info("reloaded: %s", line)
        return difference

    async def _ask_sources(self) -> tuple[MountPlan, Survey]:
        with trio.move_on_after(_SOURCES_SECONDS):
            return await trio.to_thread.run_sync(
                self._read_again, abandon_on_cancel=True, limiter=self._source_threads
            )
        raise OverlaydError(_NO_ANSWER)

    def _read_again(self) -> tuple[MountPlan, Survey]:
        plan = self.plan.reread()
        own = self._overlay.namespace.own_device
        inside = [source.preopen for source in plan.sources if source.stat.dev == own]
        if inside:
            del plan  # its sources would keep the mount busy for as long as the error is looked at
            raise UsageError(
                f"{inside[0].origin}: {printable(inside[0].host)} lies in this very mount;"
                " name the directory that is shown there"
            )
        return plan, survey(plan.table, plan.sources)

    def _compare(self, plan: MountPlan, wanted: Survey) -> Difference:
        kept = find_kept(self._overlay.namespace.assembly, wanted.sources)
        same = {attachment.preopen.guest for attachment in kept.values()}
        difference = compare_tables(self.plan.table, plan.table, same)
        difference.settings.extend(self.plan.changed_settings(plan))
        difference.remount_needed.extend(self.plan.changed_for_good(plan))
        return difference

    @contextmanager
    def _holding_back(self) -> Iterator[None]:
        """Have no further file written to past us while it is being looked at which are."""
        ways = self._overlay.data.ways
        ways.holds_back = True
        try:
            yield
        finally:
            ways.holds_back = False

    async def _refuse_irrevocable(self, wanted: Survey) -> None:
        if not written_past_us(self._overlay):
            return
        found = None
        with trio.move_on_after(_SOURCES_SECONDS):
            found = await trio.to_thread.run_sync(
                lambda: list(irrevocable(self._overlay, wanted)),
                abandon_on_cancel=True,
                limiter=self._source_threads,
            )
        if found is None:
            raise OverlaydError(_NO_ANSWER)
        if found:
            guest, reason = found[0]
            others = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise OverlaydError(
                f"{guest}{others} is open for writing past the daemon, which cannot be taken back,"
                f" and would become read-only: {reason}; have the guest close it, or mount with"
                " --passthrough off"
            )

    def _take_over(self, plan: MountPlan) -> None:
        self._overlay.namespace.rules = plan.rules
        settings = plan.as_mounted(self.plan)
        self._operations.configure(plan.cache, plan.errors)
        self._operations.passthrough.mode = settings.passthrough
        self._changes.adjust()
        logging.getLogger().setLevel(plan.log_level.upper())
        self.plan = settings
        self._record(self.plan)

    async def _tell_kernel(self, outdated: Outdated) -> None:
        """Have the kernel forget what it was told; may wait for a lookup that is under way."""
        with trio.move_on_after(_SECONDS) as limit:
            await self._changes.table_changed(outdated)
        if limit.cancelled_caught:
            log.warning("the kernel still waits for a source and may show what was for a while")

    async def _revoke(self) -> None:
        """Judge every open file anew, those of one device apart from those of another."""
        async with trio.open_nursery() as nursery:
            for device, handles in self._overlay.data.writers().items():
                nursery.start_soon(self._revoke_on, device, handles)
        with trio.move_on_after(_SECONDS), suppress(OSError):
            await trio.to_thread.run_sync(
                self._overlay.access.catch_up, abandon_on_cancel=True, limiter=self._source_threads
            )
        revoked = [handle for handle in self._overlay.namespace.handles if handle.revoked]
        left = sum(handle.cannot_be_revoked for handle in revoked)
        if revoked:
            log.info("%d open files take no more writes: they are read-only now", len(revoked))
        if left:
            log.warning("%d open files are read-only now and can be written to until closed", left)

    async def _revoke_on(self, device: int, handles: list[Handle]) -> None:
        """Judge *handles*. What a slow source does not tell in time is taken for read-only.

        Until it does tell: the thread that waits for it goes on.
        """
        limiter = self._limiters.setdefault(device, trio.CapacityLimiter(_THREADS))
        is_slow = self._overlay.namespace.may_block(handles[0].node)
        pending = list(reversed(handles))
        with trio.move_on_after(_SECONDS if is_slow else math.inf):
            await trio.to_thread.run_sync(
                self._judge, pending, abandon_on_cancel=True, limiter=limiter
            )
        for handle in pending:
            handle.revoked = True

    def _judge(self, pending: list[Handle]) -> None:
        """Judge the last of *pending* until none is left; each stays in it until that is done."""
        with self._overlay.namespace.patience():
            while pending:
                self._overlay.data.revoke(pending[-1])
                pending.pop()

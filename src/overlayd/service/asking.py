"""The verb `explain`: what a live mount does with guest paths."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import trio

from overlayd.core.explain import Explanation, explain_text
from overlayd.core.nodes import Node
from overlayd.core.overlay import Overlay
from overlayd.errors import OverlaydError, UsageError
from overlayd.table.guest_path import printable

_THREADS = 4
_SECONDS = 10.0


class Explainer:
    """Explains paths of one live namespace, in threads of which a slow source gets but a few."""

    def __init__(self, overlay: Overlay) -> None:
        self._overlay = overlay
        self._limiter = trio.CapacityLimiter(_THREADS)

    async def verb(self, request: Mapping[str, Any]) -> object:
        """The explanations of the request's `paths`, in their order. Raises OverlaydError."""
        paths = request.get("paths")
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise UsageError("paths: give a list of guest paths")
        answers: list[Explanation] = []
        with trio.move_on_after(_SECONDS) as limit:
            for path in paths:
                answers.append(await self._explain(path))
        if limit.cancelled_caught:
            waiting = printable(paths[len(answers)])
            raise OverlaydError(
                f"{waiting}: its source did not answer within {_SECONDS:g} s; see to the source"
            )
        return [asdict(answer) for answer in answers]

    async def _explain(self, path: str) -> Explanation:
        return await trio.to_thread.run_sync(
            self._patiently,
            path,
            trio.lowlevel.current_trio_token(),
            abandon_on_cancel=True,
            limiter=self._limiter,
        )

    def _patiently(self, path: str, loop: trio.lowlevel.TrioToken) -> Explanation:
        visited: list[Node] = []
        try:
            with self._overlay.namespace.patience():
                return explain_text(self._overlay.namespace, self._overlay.access, path, visited)
        finally:
            with suppress(trio.RunFinishedError):
                loop.run_sync_soon(self._leave, visited)

    def _leave(self, visited: Sequence[Node]) -> None:
        """Drop the nodes that only the walk needed.

        In the loop and not in the thread: the loop is never between finding a node and lending it.
        """
        space = self._overlay.namespace
        for node in visited:
            if space.nodes.discard_if_unused(node):
                space.cache.drop(node)

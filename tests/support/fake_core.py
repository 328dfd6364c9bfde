"""A core that answers what it is told to: for tests of the adapter alone."""

from __future__ import annotations

import stat
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, TypeVar, cast

import pyfuse3
import trio

from overlayd.core.descriptors import DescriptorCache
from overlayd.core.overlay import Overlay
from overlayd.core.types import Attrs, ErrorStyle, WouldBlock
from overlayd.host.fs import HostStat
from overlayd.kernel.cache import CachePolicy
from overlayd.kernel.operations import Operations

T = TypeVar("T")

DEVICE = 42
STATUS = HostStat(
    *(DEVICE, 7, 1, 0, 0o100640, 3, 12, 34, 0, 56, 8, 4096),
    *(1_500_000_000_000_000_001, 1_600_000_000_000_000_002, 1_700_000_000_000_000_003),
)
ATTRS = Attrs(number=99, stat=STATUS, size=1234, volatile=False)


class FakeNode:
    """The root of a directory tree that nothing is known of."""

    file_type = stat.S_IFDIR
    mount = key = parent = position = other_places = None
    number = 99
    told_ns = 0


NODE = FakeNode()
HANDLE = SimpleNamespace(device=DEVICE, node=NODE, writable=False, way=None, may_be_mapped=False)
CONTEXT = pyfuse3.RequestContext()


class FakeFamily:
    """One verb family: every method does what `answers` says for its name, else `default`."""

    ways: SimpleNamespace

    def __init__(self, core: FakeCore) -> None:
        self._core = core

    def __getattr__(self, name: str) -> Callable[..., object]:
        return lambda *args: self._core.called(name, args)


class FakeNodes:
    """One node, whatever the number."""

    def get(self, _number: int) -> FakeNode:
        return NODE

    peek = get

    def __len__(self) -> int:
        return 1


class FakeCore:
    """Stands for `Overlay`: records every call, and the thread it came in."""

    def __init__(self) -> None:
        self.shared = False
        self.is_patient = False
        self.names = FakeFamily(self)
        self.listings = FakeFamily(self)
        self.attributes = FakeFamily(self)
        self.data = FakeFamily(self)
        self.data.ways = SimpleNamespace(registry=None)
        self.namespace = SimpleNamespace(
            patience=self.patience,
            nodes=FakeNodes(),
            handles=SimpleNamespace(get=lambda _: HANDLE),
            has_slow_source=False,
            may_block=lambda _: self.shared,
            is_patient=lambda: self.is_patient,
            cache=DescriptorCache(8),
            consent_to_wait=self.consent_to_wait,
        )
        self.calls: list[tuple[str, tuple[Any, ...], int]] = []
        self.answers: dict[str, Callable[..., object]] = {}
        self.default: Callable[..., object] = lambda *_: ATTRS

    def called(self, name: str, args: tuple[Any, ...]) -> object:
        self.calls.append((name, args, threading.get_ident()))
        return self.answers.get(name, self.default)(*args)

    @contextmanager
    def patience(self) -> Iterator[None]:
        self.is_patient = True
        yield
        self.is_patient = False

    def consent_to_wait(self, device: int) -> None:
        if not self.is_patient:
            raise WouldBlock(device)

    def raises(self, error: BaseException) -> None:
        """From now on every method raises ERROR."""

        def raise_it(*_: object) -> object:
            raise error

        self.default = raise_it

    def blocks_first(self, answer: object) -> None:
        """From now on every method wants a thread that may wait, and then says ANSWER."""

        def block(*_: object) -> object:
            if not self.is_patient:
                raise WouldBlock(DEVICE)
            return answer

        self.default = block

    def operations(self, errors: ErrorStyle = "posix", seconds: float = 1.5) -> Operations:
        """The adapter over this core."""
        return Operations(cast(Overlay, self), CachePolicy(seconds), errors)


def run(handler: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    """Run one HANDLER as the request loop does."""

    async def call() -> T:
        return await handler(*args)

    return trio.run(call)

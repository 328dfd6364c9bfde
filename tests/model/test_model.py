"""Random sequences of operations, through overlayd and on kernel bind mounts of identical trees.

Answers, errno, what the tree shows and what the sources hold afterwards must agree, except for
what conformance/exceptions.py lists. OVERLAYD_MODEL_EXAMPLES=N tries N sequences, other ones each
time, in place of the few and constant ones of a test run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from conformance.environments import Worker, kernel_tree, overlayd_tree
from conformance.layout import NESTED, ROOTLESS, Layout
from model.comparison import (
    Geography,
    difference,
    host_tree,
    is_for_overlayd_alone,
    tree_differences,
)
from model.execution import Operation
from model.strategies import sequences

ASKED_FOR = os.environ.get("OVERLAYD_MODEL_EXAMPLES")
CACHE_SECONDS = 0.12
"""`--cache coherent` promises 100 ms for changes on the host: how the trees are reset."""


def run_settings(examples: int) -> settings:
    return settings(
        max_examples=int(ASKED_FOR or examples),
        derandomize=ASKED_FOR is None,
        database=None,  # nothing is left behind
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )


@dataclass(frozen=True)
class Pair:
    """One layout twice, each with the directory of its sources and a worker."""

    layout: Layout
    kernel_base: Path
    kernel: Worker
    overlayd_base: Path
    overlayd: Worker
    settle: float
    """Seconds to wait after the trees were reset."""

    def reset(self) -> None:
        self.layout.fill(self.kernel_base)
        self.layout.make_mount_points(self.kernel_base)
        self.layout.fill(self.overlayd_base)
        time.sleep(self.settle)

    def compare(self, operations: list[Operation]) -> list[str]:
        """Carry out OPERATIONS on both sides; what does not agree."""
        geography = Geography(self.layout)
        answers = self.overlayd.ask("sequence", operations)
        both = [
            (operation, answer)
            for operation, answer in zip(operations, answers, strict=True)
            if not is_for_overlayd_alone(operation, answer, geography)
        ]
        expected = self.kernel.ask("sequence", [operation for operation, _ in both])
        problems = [
            f"{operation}: {problem}"
            for (operation, answer), kernel in zip(both, expected, strict=True)
            if (problem := difference(operation, kernel, answer, geography))
        ]
        problems += tree_differences(self.kernel.ask("walk"), self.overlayd.ask("walk"))
        return problems + tree_differences(
            host_tree(self.kernel_base, self.layout), host_tree(self.overlayd_base, self.layout)
        )


@contextmanager
def pair(tmp_path: Path, layout: Layout, cache: str) -> Iterator[Pair]:
    with (
        kernel_tree(tmp_path, layout, chroot=True) as (kernel_base, kernel),
        overlayd_tree(tmp_path, layout, ("--cache", cache)) as (overlayd_base, overlayd),
    ):
        settle = CACHE_SECONDS if cache == "coherent" else 0.0
        yield Pair(layout, kernel_base, kernel, overlayd_base, overlayd, settle)


@pytest.mark.usefixtures("data_way")
@pytest.mark.timeout(1200 if ASKED_FOR else 300)
@pytest.mark.parametrize(("cache", "examples"), [("none", 120), ("coherent", 50)])
@pytest.mark.parametrize("layout", [NESTED, ROOTLESS], ids=["over a root", "without a root"])
def test_sequences_agree(tmp_path: Path, layout: Layout, cache: str, examples: int) -> None:
    with pair(tmp_path, layout, cache) as both:

        @run_settings(examples)
        @given(sequences)
        def agree(operations: list[Operation]) -> None:
            both.reset()
            problems = both.compare(operations)
            assert not problems, "\n".join(problems)

        agree()

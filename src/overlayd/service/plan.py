"""Everything one mount needs to know, settled before anything is mounted."""

from collections.abc import Sequence
from dataclasses import dataclass

from overlayd.core.types import Rules
from overlayd.host.sources import Source
from overlayd.kernel.cache import CachePolicy
from overlayd.kernel.operations import ErrorStyle
from overlayd.table.mount_tree import MountTable


@dataclass(frozen=True, slots=True)
class MountPlan:
    """A table whose sources are open, and how it is to be mounted."""

    target: str
    table: MountTable
    sources: Sequence[Source]
    rules: Rules
    cache: CachePolicy
    errors: ErrorStyle
    allow_other: bool = False
    replace: bool = False
    mount_options: frozenset[str] = frozenset()
    remove_target: bool = False
    """Whether the target is a temporary directory that goes with the mount."""

"""Everything one mount needs to know, settled before anything is mounted."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from overlayd.core.types import ErrorStyle, Rules
from overlayd.host.sources import Source
from overlayd.kernel.cache import CachePolicy
from overlayd.kernel.passthrough import Mode
from overlayd.table.mount_tree import MountTable


@dataclass(frozen=True, slots=True)
class MountPlan:
    """A table whose sources are open, and how it is to be mounted."""

    target: str
    table: MountTable
    sources: list[Source]
    """Emptied once they are mounted: a reload must be able to let go of them."""
    rules: Rules
    cache: CachePolicy
    errors: ErrorStyle
    alias: str = "ro-wins"
    """As asked for; a table that it refuses makes no plan."""
    allow_other: bool = False
    replace: bool = False
    mount_options: frozenset[str] = frozenset()
    passthrough: Mode = "auto"
    may_pass: bool = True
    """Whether the mount it is for was, or is to be, made so that the kernel may pass us by."""
    remove_target: bool = False
    """Whether the target is a temporary directory that goes with the mount."""
    log_level: str = "info"
    read_again: Callable[[], "MountPlan"] | None = None

    def reread(self) -> "MountPlan":
        """The plan as the configuration is now. Raises UsageError."""
        return self if self.read_again is None else self.read_again()

    def changed_settings(self, other: "MountPlan") -> Iterator[tuple[str, str, str]]:
        """Name, value here and value in *other* of each setting that can change live."""
        for name, mine, theirs in (
            ("symlinks", self.rules.symlinks, other.rules.symlinks),
            ("cache", str(self.cache), str(other.cache)),
            ("errors", self.errors, other.errors),
            ("passthrough", self.passthrough, other.as_mounted(self).passthrough),
            ("log_level", self.log_level, other.log_level),
        ):
            if mine != theirs:
                yield name, mine, theirs

    def changed_for_good(self, other: "MountPlan") -> Iterator[str]:
        """The settings that differ in *other* and that only a new mount can change."""
        if self.allow_other != other.allow_other:
            yield "allow_other"
        if self.passthrough != other.passthrough and not self.may_pass:
            yield "passthrough"

    def as_mounted(self, mounted: "MountPlan") -> "MountPlan":
        """This plan, with what only a new mount can change as *mounted* has it."""
        return dataclasses.replace(
            self,
            allow_other=mounted.allow_other,
            passthrough=self.passthrough if mounted.may_pass else "off",
            may_pass=mounted.may_pass,
        )

"""What the kernel may keep, and for how long (SPEC.md section 7)."""

from dataclasses import dataclass

LASTING = 86400.0
"""Seconds for what is watched: until the kernel is told otherwise."""
SHORT = 0.1
"""Seconds for what is not watched, or not yet, in a mode that promises as much."""
UNWATCHABLE = 1.0
"""Seconds for what cannot be watched."""


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Validity of names, attributes and negative names in the kernel."""

    seconds: float
    """Where nothing is watched."""
    name: str = ""
    """As the operator gave it."""
    watches: bool = False
    """Whether the host is watched, so that the kernel may keep things until they change."""

    def __str__(self) -> str:
        return self.name or f"{self.seconds:g}"

    @property
    def slow_seconds(self) -> float:
        """For what lies on a file system that may keep a caller waiting."""
        return UNWATCHABLE if self.watches else 0.0

    @classmethod
    def parse(cls, text: str) -> "CachePolicy":
        """Read `coherent`, `none` or a number of seconds. Raises ValueError for anything else.

        `coherent` promises that a change on the host is seen within 100 ms.
        """
        if text == "coherent":
            return cls(SHORT, text, watches=True)
        if text == "none":
            return cls(0.0, text)
        seconds = float(text)
        if not 0 <= seconds <= 86400:
            raise ValueError(f"{text} is not between 0 and 86400 seconds")
        return cls(seconds)

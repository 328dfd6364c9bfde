"""What the kernel may keep, and for how long (SPEC.md section 7)."""

from dataclasses import dataclass

_COHERENT_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Validity of names, attributes and negative names in the kernel, in seconds."""

    seconds: float
    name: str = ""
    """As the operator gave it."""
    keeps_listings: bool = False
    """Whether the kernel may answer listings by itself, as somebody tells it what has changed."""

    def __str__(self) -> str:
        return self.name or f"{self.seconds:g}"

    @classmethod
    def parse(cls, text: str) -> "CachePolicy":
        """Read `coherent`, `none` or a number of seconds. Raises ValueError for anything else.

        `coherent` promises that a change on the host is seen within 100 ms: names and attributes
        are kept for just that long.
        """
        if text == "coherent":
            return cls(_COHERENT_SECONDS, text)
        if text == "none":
            return cls(0.0, text)
        seconds = float(text)
        if not 0 <= seconds <= 86400:
            raise ValueError(f"{text} is not between 0 and 86400 seconds")
        return cls(seconds)

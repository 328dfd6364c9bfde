"""The entry of the `overlayd` command: a plain `health` at once, everything else through click.

A service manager asks for `health` every few seconds, and most of what a command costs is what it
imports. So this module imports nothing that `health` can do without, `typing` included.
"""

import sys

from overlayd.errors import OverlaydError
from overlayd.service.health import require_health

TYPE_CHECKING = False  # as in typing
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """Run the command line; exit 0 done, 1 it failed, 2 the command line is wrong."""
    asked = plain_health(sys.argv[1:])
    if asked is not None:
        sys.exit(_health(*asked))
    from overlayd.cli.commands import run

    sys.exit(run())


def plain_health(words: list[str]) -> tuple[str, float] | None:
    """TARGET and seconds, where *words* are `health [--timeout SECONDS] TARGET` and no more.

    None for all others: to read them and to say what is wrong with them takes click.
    """
    match words:
        case ["health", str(target)]:
            text = "2"
        case ["health", "--timeout", str(text), str(target)]:
            pass
        case _:
            return None
    try:
        seconds = float(text)
    except ValueError:
        return None
    return (target, seconds) if target.startswith("/") and 0 < seconds <= 3600 else None


def _health(target: str, seconds: float) -> int:
    try:
        require_health(target, seconds)
    except (OverlaydError, OSError, KeyboardInterrupt) as error:
        from overlayd.cli.commands import complain

        return complain("overlayd", error)
    return 0

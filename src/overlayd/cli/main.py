"""The entry of the `overlayd` command: a plain `health` at once, everything else through click.

A service manager asks for `health` every few seconds, and most of what a command costs is what it
imports. So this module imports nothing that `health` can do without, `typing` included. Where there
will be a daemon, it is forked before all else is imported.
"""

import sys

from overlayd.errors import OverlaydError
from overlayd.service.health import PATIENCE, require_health, seconds_in

TYPE_CHECKING = False  # as in typing
if TYPE_CHECKING:
    from typing import NoReturn

_FOREGROUND = frozenset(("-f", "--foreground"))
_HELP = frozenset(("-h", "--help"))


def main() -> "NoReturn":
    """Run the command line; exit 0 done, 1 it failed, 2 the command line is wrong."""
    words = sys.argv[1:]
    asked = plain_health(words)
    sys.exit(_other(words) if asked is None else _health(*asked))


def plain_health(words: list[str]) -> tuple[str, float] | None:
    """TARGET and seconds, where *words* are `health [--timeout SECONDS] TARGET` and no more.

    None for all others: to read them and to say what is wrong with them takes click.
    """
    match words:
        case ["health", target]:
            seconds: float | None = PATIENCE
        case ["health", "--timeout", text, target]:
            seconds = seconds_in(text)
        case _:
            return None
    return (target, seconds) if target.startswith("/") and seconds is not None else None


def _health(target: str, seconds: float) -> int:
    try:
        require_health(target, seconds)
    except (OverlaydError, OSError, KeyboardInterrupt) as error:
        from overlayd.cli.commands import complain

        return complain("overlayd", error)
    return 0


def _other(words: list[str]) -> int:
    from overlayd.cli.afresh import start_afresh

    start_afresh()
    if serves_here(words):
        return _in_foreground()
    if not leaves_daemon(words):
        return _run()
    from overlayd.service.background import early_daemon

    with early_daemon():
        return _run()


def _in_foreground() -> int:
    from overlayd.service.foreground import serve_what

    try:
        return serve_what(_run)
    except (OverlaydError, OSError, KeyboardInterrupt) as error:
        from overlayd.cli.commands import complain

        return complain("overlayd", error)


def _run() -> int:
    from overlayd.cli.commands import run

    return run()


def leaves_daemon(words: list[str]) -> bool:
    """Whether *words* look as if a daemon would be wanted; either answer is safe."""
    match words:
        case ["run", _, *_]:
            return True
        case ["mount", _, *_]:
            return not {*_FOREGROUND, *_HELP} & set(words)
    return False


def serves_here(words: list[str]) -> bool:
    """Whether *words* look as if this process were to serve; either answer is safe."""
    return words[:1] == ["mount"] and bool(_FOREGROUND & set(words)) and not _HELP & set(words)

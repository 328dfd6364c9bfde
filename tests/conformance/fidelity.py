"""The page docs/fidelity.md: what the behaviours and exceptions.py say, as tables.

Written by tools/fidelity-table, which runs the behaviours first. test_fidelity.py compares the page
with `render`; that what it says is true is what test_conformance.py shows.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from pathlib import Path

from conformance.case import Behaviour
from conformance.catalogue import BEHAVIOURS
from conformance.exceptions import EXCEPTIONS, OK, Divergence

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fidelity.md"

_HEAD = """# Fidelity

Operations × (agrees with the host | differs, why). Made by `make fidelity` from the behaviours in
`tests/conformance` and their one table of exceptions; do not edit.

Each behaviour runs on a plain directory, through one preopen, through nested preopens, and on
kernel bind mounts, as root and, where users matter, as several ordinary ones. All must answer the
same: success or errno, which errno comes first, times, modes, owners and link counts afterwards.
What is not in the column *differs* agrees.
"""

_DIFFERENCES = """
## Differences

Every one is shown by a behaviour on both sides, so that a row that no longer holds fails.
"""

_AREAS = """
## Other behaviours

What is about no single operation: contents, listings, mount points, names.
"""


def render() -> str:
    """The whole page."""
    lines = [
        *_HEAD.splitlines(),
        "",
        *_table(("operation", "behaviours", "agrees", "differs"), _operations()),
        *_DIFFERENCES.splitlines(),
        "",
        *_table(("operation", "what", "host", "overlayd", "why"), _differences()),
        *_AREAS.splitlines(),
        "",
        *_table(("module", "behaviours", "which"), _areas()),
    ]
    return "\n".join(lines) + "\n"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    for row in (heads, ("---",) * len(heads), *rows):
        yield f"| {' | '.join(row)} |"


def _operations() -> Iterator[tuple[str, ...]]:
    names = {name for behaviour in BEHAVIOURS.values() for name in behaviour.operations}
    names |= {name for row in EXCEPTIONS.values() for name in row.operations}
    for name in sorted(names):
        tested = [b for b in BEHAVIOURS.values() if name in b.operations]
        rows = [row.name for row in EXCEPTIONS.values() if name in row.operations]
        count = str(len(tested))
        agrees = "but for:" if rows else "everywhere"
        yield f"`{name}`", count, agrees, "; ".join(rows) or "nowhere"


def _differences() -> Iterator[tuple[str, ...]]:
    for row in sorted(EXCEPTIONS.values(), key=lambda row: (row.operations, row.name)):
        operations = ", ".join(f"`{name}`" for name in row.operations)
        yield operations, row.name, _answer(row.kernel), _answer(row.overlayd), _reason(row)


def _reason(row: Divergence) -> str:
    return row.reason.replace("|", "\\|")


def _answer(answer: int | str) -> str:
    if isinstance(answer, str):
        return answer
    if answer == errno.EOPNOTSUPP:
        return "EOPNOTSUPP"  # Linux's ENOTSUP is the same number
    return "success" if answer == OK else errno.errorcode[answer]


def _areas() -> Iterator[tuple[str, ...]]:
    modules: dict[str, list[Behaviour]] = {}
    for behaviour in BEHAVIOURS.values():
        if not behaviour.operations:
            modules.setdefault(behaviour.run.__module__.partition(".")[2], []).append(behaviour)
    for module, behaviours in sorted(modules.items()):
        which = ", ".join(sorted(b.name.replace("_", " ") for b in behaviours))
        yield f"`{module}`", str(len(behaviours)), which

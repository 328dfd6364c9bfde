"""docs/fidelity.md says what the behaviours and exceptions.py say."""

from __future__ import annotations

import pytest

from conformance import fidelity
from conformance.catalogue import BEHAVIOURS
from conformance.exceptions import EXCEPTIONS

PROMISED = {
    *("chmod", "chown", "link", "mkdir", "mkfifo", "mknod", "open", "rename", "rmdir", "symlink"),
    *("truncate", "ftruncate", "unlink", "utimensat", "posix_fallocate"),
}


def test_the_page_is_up_to_date() -> None:
    assert fidelity.PAGE.read_text() == fidelity.render(), "run `make fidelity`"


def test_every_operation_of_the_page_has_behaviours() -> None:
    tested = {name for behaviour in BEHAVIOURS.values() for name in behaviour.operations}
    assert {name for row in EXCEPTIONS.values() for name in row.operations} <= tested


@pytest.mark.parametrize("operation", sorted(PROMISED))
def test_every_promised_operation_has_behaviours(operation: str) -> None:
    assert sum(operation in behaviour.operations for behaviour in BEHAVIOURS.values()) >= 2

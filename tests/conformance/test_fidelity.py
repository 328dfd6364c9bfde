"""docs/fidelity.md says what the behaviours and exceptions.py say."""

from __future__ import annotations

import pytest

from conformance import fidelity
from conformance.catalogue import BEHAVIOURS

PROMISED = {
    *("chmod", "chown", "link", "mkdir", "mkfifo", "mknod", "open", "rename", "rmdir", "symlink"),
    *("truncate", "ftruncate", "unlink", "utimensat", "posix_fallocate"),
}


def test_the_page_is_up_to_date() -> None:
    assert fidelity.PAGE.read_text() == fidelity.render(), "run `make fidelity`"


@pytest.mark.parametrize("operation", sorted(PROMISED))
def test_every_operation_has_behaviours(operation: str) -> None:
    assert sum(operation in behaviour.operations for behaviour in BEHAVIOURS.values()) >= 2

"""Large files, and having the page cache forget them."""

from __future__ import annotations

import os
import random
from pathlib import Path

MIB = 1 << 20


def forget(path: Path) -> None:
    """Have the page cache forget what it can of PATH."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def plant_large(path: Path, size: int) -> None:
    """A file of SIZE bytes on the disk, with a hole after the first 2 MiB."""
    with path.open("wb") as file:
        file.write(random.Random(1).randbytes(2 * MIB))
        file.seek(4 * MIB)
        file.write(random.Random(2).randbytes(size - 4 * MIB))
        os.fsync(file.fileno())

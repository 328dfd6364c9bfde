"""A small file system of a test's own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def ext4(place: Path, mib: int, reserved: int = 5, uuid: str = "random") -> Iterator[Path]:
    """An ext4 of so many MIB, RESERVED percent of it kept for root; mounted below PLACE.

    With the UUID "clear" it has none, nor a number for fanotify to tell it by.
    """
    image, top = place / "image", place / "disk"
    with image.open("wb") as file:
        file.truncate(mib << 20)
    words = ["mkfs.ext4", "-q", "-m", str(reserved), "-U", uuid, "-O", "^has_journal", str(image)]
    subprocess.run(words, check=True)
    top.mkdir()
    subprocess.run(["mount", "-o", "loop", str(image), str(top)], check=True)
    try:
        yield top
    finally:
        subprocess.run(["umount", str(top)], check=True)

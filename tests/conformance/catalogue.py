"""The list of behaviours, complete once this is imported."""

from __future__ import annotations

from conformance import attributes, directories, files, mounts, names, owners
from conformance.case import BEHAVIOURS, Behaviour
from conformance.posix import (
    chmod,
    chown,
    creating,
    link,
    opening,
    paths,
    removing,
    rename,
    truncate,
    utimensat,
)

__all__ = [
    "BEHAVIOURS",
    "Behaviour",
    "attributes",
    "chmod",
    "chown",
    "creating",
    "directories",
    "files",
    "link",
    "mounts",
    "names",
    "opening",
    "owners",
    "paths",
    "removing",
    "rename",
    "truncate",
    "utimensat",
]

"""Fixtures of the tests of commands and daemons."""

from support.isolation import open_path, runtime_directory

__all__ = ["open_path", "runtime_directory"]

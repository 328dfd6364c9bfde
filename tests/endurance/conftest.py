"""Fixtures of the tests of load, faults and limits."""

from support.isolation import open_path, runtime_directory

__all__ = ["open_path", "runtime_directory"]

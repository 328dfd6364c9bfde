"""Fixtures of the tests on aliases."""

from support.isolation import open_path, runtime_directory

__all__ = ["open_path", "runtime_directory"]

"""Fixtures of the tests of what the kernel keeps, and when it forgets."""

from support.isolation import open_path, runtime_directory

__all__ = ["open_path", "runtime_directory"]

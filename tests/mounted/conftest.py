"""Fixtures of the tests on real mounts."""

from support.isolation import open_path, runtime_directory

__all__ = ["open_path", "runtime_directory"]

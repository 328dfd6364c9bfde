"""The two kinds of errors: exit status for people, errno for the kernel."""

from __future__ import annotations

import errno
import inspect
import os

import pytest

from overlayd import errors


def constructors() -> list[str]:
    members = inspect.getmembers(errors, inspect.isfunction)
    return [name for name, _ in members if not name.startswith("_")]


@pytest.mark.parametrize("name", constructors())
def test_each_constructor_makes_the_errno_it_is_called_after(name: str) -> None:
    error = getattr(errors, name)()
    number = getattr(errno, name.upper())
    assert isinstance(error, OSError)
    assert error.errno == number
    assert error.strerror == os.strerror(number)


def test_python_knows_them_by_class() -> None:
    assert isinstance(errors.enoent(), FileNotFoundError)
    assert isinstance(errors.eexist(), FileExistsError)
    assert isinstance(errors.enotdir(), NotADirectoryError)


def test_exit_status() -> None:
    assert errors.OverlaydError.exit_code == 1
    assert errors.UsageError.exit_code == 2
    assert issubclass(errors.UsageError, errors.OverlaydError)

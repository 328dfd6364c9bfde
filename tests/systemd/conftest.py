"""One booted systemd for all tests here, and instances of the units in it that clean up."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.instance import Instance
from support.machine import Machine, why_not
from support.processes import become_subreaper

_numbers = itertools.count()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What boots, and hears a watchdog, is not to share the processors."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.alone)


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """The machine; skips where this one cannot boot it."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    become_subreaper()
    machine = Machine(tmp_path_factory.mktemp("systemd"))
    try:
        yield machine
    finally:
        machine.stop()


@pytest.fixture
def instance(machine: Machine, request: pytest.FixtureRequest) -> Iterator[Instance]:
    """An instance that is configured and not started; its journal is printed."""
    instance = Instance(machine, f"test{next(_numbers)}")
    instance.configure()
    try:
        yield instance
        instance.clean_up()
    finally:
        print(machine.journal(instance.unit), machine.journal(instance.guest))


@pytest.fixture
def another(machine: Machine) -> Iterator[Instance]:
    """A second one."""
    instance = Instance(machine, f"test{next(_numbers)}")
    instance.configure()
    yield instance
    instance.clean_up()


@pytest.fixture(scope="session")
def wasmtime(machine: Machine) -> None:
    """A real wasmtime where the example unit looks for it."""
    machine.install_wasmtime()

"""What is only needed to look at mounts is loaded only then, and what serves only in a daemon.

See tests/service/test_loaded_modules.py for what real mounts load.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("rich", "prometheus_client", "asyncinotify", "asyncio")
LOOP = ("trio", "pyfuse3")

RUN = """
import json, sys
from overlayd.cli.commands import cli
try:
    cli.main(json.loads(sys.argv[1]), standalone_mode=False)
except Exception:
    pass
for name in json.loads(sys.argv[2]):
    __import__(name)
json.dump(sorted({name.partition(".")[0] for name in sys.modules}), sys.stderr)
"""


def loaded(*arguments: str, modules: tuple[str, ...] = ()) -> set[str]:
    """The top-level modules that are there after a command, and after importing MODULES."""
    words = [sys.executable, "-c", RUN, json.dumps(arguments), json.dumps(modules)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    return set(json.loads(done.stderr))


@pytest.mark.parametrize("command", [("health", "/"), ("umount", "/"), ("status",)])
def test_commands_that_only_ask(command: tuple[str, ...]) -> None:
    assert not loaded(*command) & {*HEAVY, *LOOP}


@pytest.mark.parametrize("command", [("status", "--json"), ("explain", "--target", "/", "/x")])
def test_what_programs_read(command: tuple[str, ...]) -> None:
    assert not loaded(*command) & {*HEAVY, *LOOP}


def test_a_command_that_only_plans() -> None:
    assert not loaded("check", "--dir", "/::/", modules=("overlayd.cli.mount",)) & set(LOOP)


def test_the_metrics_do_need_it() -> None:
    assert "prometheus_client" in loaded("status", "--metrics")

"""What the extension changes in replies to the kernel, and all that it must leave alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from overlayd.kernel import wire
from support.wire_client import (
    CREATE,
    FSYNCDIR,
    INIT_EXT,
    LOOKUP,
    OPEN,
    OPENDIR,
    READ,
    Kernel,
    session,
)
from support.wire_server import BACKED, FAILING, HELD, KEPT, LISTED, PLAIN

LISTING = wire.CACHE_DIR | wire.KEEP_CACHE
USUAL = 0x73FFFFFB | INIT_EXT  # what Linux 6.18 offers, but for the second word
NAMES = [b"x", b"\xff\xfe\n", b"a" * 255, b"\x01" * 4096, b"%n%s"]


def open_reply(kernel: Kernel, opcode: int, node: int, body: bytes) -> tuple[int, int, int]:
    reply = kernel.ask(opcode, node, body)
    assert reply.error == 0
    return reply.opened


def converse(kernel: Kernel) -> list[bytes]:
    """The replies to requests that nobody wants amended."""
    replies = [kernel.init(USUAL & ~wire.PARALLEL_DIROPS & ~wire.HANDLE_KILLPRIV_V2)]
    replies += [kernel.ask(LOOKUP, 1, name + b"\0") for name in NAMES]
    replies += [kernel.ask(opcode, PLAIN, bytes(8)) for opcode in (OPEN, OPENDIR)]
    replies += [kernel.ask(CREATE, PLAIN, bytes(16) + name + b"\0") for name in NAMES]
    replies += [kernel.ask(OPENDIR, FAILING, bytes(8))]
    replies += [kernel.ask(READ, PLAIN, (20).to_bytes(8, "little") + bytes(8) + bytes([16]) * 24)]
    assert len(replies[-1].body) == 16 and not replies[-1].error
    replies += [kernel.ask(opcode, 1, bytes(200_000)) for opcode in (4711, 2**32 - 1, LOOKUP)]
    return [repr(reply).encode() for reply in replies]


def test_all_else_is_untouched_byte_for_byte() -> None:
    with session(wire=True) as kernel:
        amending = converse(kernel)
    with session(wire=False) as kernel:
        assert amending == converse(kernel)


@pytest.mark.parametrize("minor", [45, 31])
def test_parallel_lookups_are_granted_where_they_are_offered(minor: int) -> None:
    with session() as kernel:
        assert kernel.init(USUAL, minor).granted[0] & wire.PARALLEL_DIROPS
    with session(wire=False) as kernel:
        assert not kernel.init(USUAL, minor).granted[0] & wire.PARALLEL_DIROPS


@pytest.mark.parametrize("set_id", [True, False])
def test_set_id_bits_are_left_to_us_unless_they_mean_something_here(
    set_id: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    extension = SimpleNamespace(want=lambda flags, _: asked.append(flags))
    monkeypatch.setattr(wire, "_extension", extension)
    wire.want(set_id=set_id)
    assert bool(asked[0] & wire.HANDLE_KILLPRIV_V2) is not set_id


def test_flags_of_the_second_word_and_the_stack_depth() -> None:
    with session(flags=wire.PASSTHROUGH, depth=2) as kernel:
        granted, depth = kernel.init(USUAL | wire.PASSTHROUGH).granted
        assert granted & wire.PASSTHROUGH and granted & INIT_EXT
        assert depth == 2
    with session(flags=wire.PASSTHROUGH, depth=2) as kernel:
        granted, depth = kernel.init(USUAL).granted
        assert not granted & wire.PASSTHROUGH
        assert depth == 0
    with session(flags=wire.PASSTHROUGH, depth=2) as kernel:  # a second word that is none
        assert not kernel.init((USUAL | wire.PASSTHROUGH) & ~INIT_EXT).granted[0] & wire.PASSTHROUGH


def test_a_reply_is_amended_as_asked_and_once() -> None:
    with session() as kernel:
        kernel.init(USUAL)
        assert open_reply(kernel, OPENDIR, LISTED, bytes(8)) == (LISTED * 10, LISTING, 0)
        assert open_reply(kernel, OPENDIR, PLAIN, bytes(8)) == (PLAIN * 10, 0, 0)
        assert open_reply(kernel, OPEN, KEPT, bytes(8)) == (KEPT * 10, wire.KEEP_CACHE, 0)
        assert open_reply(kernel, OPEN, BACKED, bytes(8)) == (BACKED * 10, 1 << 7, 77)
        assert open_reply(kernel, CREATE, 1, bytes(16) + b"x\0") == (70, wire.KEEP_CACHE, 0)
        assert open_reply(kernel, CREATE, PLAIN, bytes(16) + b"x\0") == (70, 0, 0)


def test_many_at_once_in_any_order() -> None:
    with session() as kernel:
        kernel.init(USUAL)
        count = 500
        asked = {kernel.send(OPENDIR, HELD + i, bytes(8)): HELD + i for i in range(count)}
        kernel.ask(LOOKUP, 1, b"x\0")
        done = kernel.send(FSYNCDIR, 1, bytes(16))
        replies = [kernel.reply() for _ in range(count + 1)]
        order = [reply.unique for reply in replies]
        assert order != sorted(order) and order != sorted(order, reverse=True)
        for reply in replies:
            if reply.unique != done:
                assert reply.opened == (asked.pop(reply.unique) * 10, LISTING, 0)
        assert not asked


# -- where it is not there --------------------------------------------------------------------


def told(code: str, *, place: Path | None = None, **environment: str) -> str:
    """What `str(wire.state())` is after CODE."""
    words = (sys.executable, "-c", f"{code}\nfrom overlayd.kernel import wire; print(wire.state())")
    path = [str(place)] if place else []
    environment = {"OVERLAYD_WIRE": "on"} | environment
    environment["PYTHONPATH"] = os.pathsep.join([*path, *filter(None, sys.path)])
    done = subprocess.run(
        words, env=os.environ | environment, capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout.strip()


def test_it_is_there_before_anything_is_mounted() -> None:
    assert told("") == "off (nothing is mounted)"


def test_the_reason_is_told() -> None:
    assert told("", OVERLAYD_WIRE="off") == "off (switched off by OVERLAYD_WIRE)"
    assert told("import pyfuse3") == "off (pyfuse3 was loaded first)"
    missing = told("import sys; sys.modules['overlayd.kernel._wire'] = None")
    assert missing.startswith("off (not built: ")


def test_the_daemon_loads_it_first() -> None:
    code = "import overlayd.service.lifecycle, sys; names = list(sys.modules)\n"
    code += "assert names.index('overlayd.kernel._wire') < names.index('pyfuse3')"
    assert told(code) == "off (nothing is mounted)"


def test_without_it_nothing_is_amended() -> None:
    code = "from overlayd.kernel import wire; assert wire.amend_open(3, 2) is False"
    told(code, OVERLAYD_WIRE="off")
    told(code)  # nothing is mounted

"""A plan on its way from the process that settled it to the daemon that serves it.

It travels as a pickle between two processes of one program, and the descriptors beside it
(unix(7), SCM_RIGHTS).
"""

import dataclasses
import errno
import io
import os
import pickle
import socket
import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

from overlayd.host.fs import Fd
from overlayd.service.plan import MountPlan

_SIZES = struct.Struct("=QI?")  # bytes of the pickle, descriptors, whether the last is a lifeline
_MOST_AT_ONCE = 200
"""Descriptors in one message: the kernel takes 253 (SCM_MAX_FD), and few on the way at a time."""


class Order(NamedTuple):
    """What a daemon is to do."""

    plan: MountPlan
    set_up_logging: Callable[[], None]
    lifeline: int | None


class _Later:
    """Reads the plan again; unpickled only then, since it takes the modules of the command line."""

    def __init__(self, read_again: Callable[[], MountPlan]) -> None:
        self._pickle = pickle.dumps(read_again)

    def __call__(self) -> MountPlan:
        read_again: Callable[[], MountPlan] = pickle.loads(self._pickle)
        return read_again()


class _Packer(pickle.Pickler):
    """Leaves descriptors out, and lists them."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.numbers: list[int] = []

    def persistent_id(self, obj: object) -> int | None:
        if not isinstance(obj, Fd):
            return None
        self.numbers.append(obj.number)
        return len(self.numbers) - 1


class _Unpacker(pickle.Unpickler):
    """Puts descriptors in where they were."""

    def __init__(self, file: io.BytesIO, numbers: Sequence[int]) -> None:
        super().__init__(file)
        self._numbers = numbers

    def persistent_load(self, pid: int) -> Fd:
        return Fd(self._numbers[pid])


def send(
    wire: socket.socket,
    plan: MountPlan,
    set_up_logging: Callable[[], None],
    lifeline: int | None,
) -> None:
    """Give *plan* and its descriptors to whoever calls `receive` at the other end of *wire*."""
    if plan.read_again is not None:
        plan = dataclasses.replace(plan, read_again=_Later(plan.read_again))
    text = io.BytesIO()
    packer = _Packer(text)
    packer.dump((plan, set_up_logging))
    numbers = packer.numbers if lifeline is None else [*packer.numbers, lifeline]
    wire.sendall(_SIZES.pack(text.tell(), len(numbers), lifeline is not None) + text.getvalue())
    for start in range(0, len(numbers), _MOST_AT_ONCE):
        socket.send_fds(wire, [b"d"], numbers[start : start + _MOST_AT_ONCE])
        wire.recv(1)  # they are through


def receive(wire: socket.socket) -> Order | None:
    """What `send` sent; None where the other end was closed instead."""
    sizes = _read(wire, _SIZES.size)
    if sizes is None:
        return None
    length, count, has_lifeline = _SIZES.unpack(sizes)
    text = _read(wire, length)
    numbers = _read_descriptors(wire, count)
    if text is None or numbers is None:
        return None
    lifeline = numbers.pop() if has_lifeline else None
    plan, set_up_logging = _Unpacker(io.BytesIO(text), numbers).load()
    return Order(plan, set_up_logging, lifeline)


def _read_descriptors(wire: socket.socket, count: int) -> list[int] | None:
    numbers: list[int] = []
    while len(numbers) < count:
        piece, some, flags, _ = socket.recv_fds(wire, 1, _MOST_AT_ONCE, socket.MSG_CMSG_CLOEXEC)
        if not piece:
            return None
        if flags & socket.MSG_CTRUNC:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        numbers += some
        wire.sendall(b"d")
    return numbers


def _read(wire: socket.socket, length: int) -> bytes | None:
    """Exactly so many bytes; None where the end comes first."""
    text = bytearray()
    while len(text) < length:
        piece = wire.recv(min(length - len(text), 1 << 20))
        if not piece:
            return None
        text += piece
    return bytes(text)

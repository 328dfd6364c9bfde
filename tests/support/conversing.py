"""A control socket for tests, served in a thread, and clients that say what they like to it."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import trio

from overlayd.service.control import Control, Verb, open_socket

LIMIT = 10.0


@contextmanager
def controlled(record: Path, **verbs: Verb) -> Iterator[Control]:
    """Serve the control socket of RECORD with VERBS in a thread; it must outlive what is done."""
    control = Control()
    control.verbs.update(verbs)
    stop = threading.Event()
    failures: list[BaseException] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(control.serve, open_socket(record))
            while not stop.is_set():
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    def run() -> None:
        try:
            trio.run(main)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield control
        assert thread.is_alive(), failures
    finally:
        stop.set()
        thread.join(LIMIT)
    assert not failures, failures


def connect(path: Path) -> socket.socket:
    """A client of the control socket PATH, however long that is."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(LIMIT)
    directory = os.open(path.parent, os.O_PATH)
    try:
        address = f"/proc/self/fd/{directory}/{path.name}"
        while (number := client.connect_ex(address)) == errno.EAGAIN:
            time.sleep(0.01)  # its queue is full
        if number:
            raise OSError(number, os.strerror(number))
    finally:
        os.close(directory)
    return client


def say(path: Path, request: bytes) -> bytes:
    """Everything that is answered to REQUEST."""
    with connect(path) as client:
        with suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(request)
        return hear(client)


def hear(client: socket.socket) -> bytes:
    """Everything until the other end closes."""
    pieces = []
    with suppress(ConnectionResetError):
        while piece := client.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


def answer_to(path: Path, **request: object) -> Any:
    """The answer to a well-formed request, as the protocol has it."""
    return json.loads(say(path, json.dumps({"version": 1, **request}).encode() + b"\n"))

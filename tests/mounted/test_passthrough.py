"""The parts of passthrough, with the real kernel: agreed upon, registered, used, given back."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from overlayd.host.backing import close_backing, open_backing
from overlayd.host.device import kernel_version
from passthrough.mounts import SINCE
from support.live import make_target
from support.mounting import detach, is_mounted


def test_data_passes_the_daemon_by(tmp_path: Path) -> None:
    host, target = tmp_path / "host", make_target(tmp_path)
    host.write_bytes(b"before" * 1000)
    heard, told = os.pipe()
    words = (sys.executable, "-m", "support.passthrough_server", str(target), str(host), str(told))
    environment = {"OVERLAYD_WIRE": "on", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    server = subprocess.Popen(words, pass_fds=[told], env=os.environ | environment)
    os.close(told)
    try:
        assert os.read(heard, 1) == b"x"
        use(target / "file", host)
    finally:
        os.close(heard)
        if is_mounted(target):
            detach(target)
        assert server.wait(20) == 0


def use(guest: Path, host: Path) -> None:
    if kernel_version() < SINCE:
        with pytest.raises(OSError) as failure:
            guest.open("rb")
        assert failure.value.errno == errno.EOPNOTSUPP
        return
    for _ in range(3):
        with guest.open("r+b") as file:
            assert file.read() == host.read_bytes()
            file.seek(0)
            file.write(b"after!")
            file.flush()
            assert host.read_bytes()[:8] == b"after!be"
            with mmap.mmap(file.fileno(), 4096) as view:
                assert view[:6] == b"after!"
                view[:6] = b"before"
                assert host.read_bytes()[:6] == b"before"


def test_only_a_session_takes_backing_files(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        for call in (open_backing, close_backing):
            with pytest.raises(OSError) as failure:
                call(file.fileno(), file.fileno())
            assert failure.value.errno == errno.ENOTTY

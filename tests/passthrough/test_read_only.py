"""What is shown read-only anywhere is opened for writing by nobody, whichever way data goes."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from passthrough.mounts import LARGE, WAYS, going, told
from support.mounting import mounted, overlayd
from support.planting import plant
from support.processes import attempt, complaint, outcome, wait_until

WRITING = (os.O_RDWR, os.O_WRONLY, os.O_WRONLY | os.O_APPEND, os.O_RDONLY | os.O_TRUNC)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    plant(tmp_path / "app", "file=app")
    plant(tmp_path / "lib", "file=" + "lib" * LARGE, "sub/deep=deep")
    os.link(tmp_path / "lib/file", tmp_path / "app/alias")
    return tmp_path


@pytest.mark.parametrize("way", WAYS)
def test_under_each_of_its_names(place: Path, way: str) -> None:
    """Also while somebody has it open already, under whatever name."""
    dirs = (f"{place}/app::/", f"{place}/lib::/lib::ro", f"{place}/lib::/second")
    names = ("alias", "lib/file", "second/file")
    with going(way, place, *dirs) as top:
        for first in (None, *names):
            reader = os.open(top / first, os.O_RDONLY) if first else None
            for name in names:
                refuses_writing(top / name)
            if reader is not None:
                os.close(reader)
        assert told(top)["opened"] == (0 if way == "off" else 3 * 4 + 3)
    assert (place / "lib/file").read_text() == "lib" * LARGE


def refuses_writing(path: Path) -> None:
    for flags in WRITING:
        assert outcome(os.open, path, flags) == "EROFS", path
    fd = os.open(path, os.O_RDONLY)
    assert os.pread(fd, 3, 0) == b"lib"
    assert outcome(os.write, fd, b"x") == "EBADF"
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 3, prot=mmap.PROT_WRITE)
    os.close(fd)


# -- a reload ---------------------------------------------------------------------------------


class Configured:
    """A mount by a configuration file."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.file = place / "overlayd.toml"

    def write(self, *dirs: str) -> None:
        lines = []
        for entry in dirs:
            host, guest, *mode = entry.split("::")
            lines += ["[[dir]]", f'host = "{self.place}/{host}"', f'guest = "{guest}"']
            lines += ["ro = true"] * bool(mode)
        self.file.write_text("\n".join(lines) + "\n")


TAKES_BACK = {
    "itself": ("lib/file", ("app::/", "lib::/lib::ro")),
    "what is deep below": ("lib/sub/deep", ("app::/", "lib::/lib::ro")),
    "another link": ("alias", ("app::/", "lib::/lib::ro")),
    "what was masked": ("lib/file", ("app::/", "lib::/lib", "lib::/more::ro")),
    "a file attached by itself": ("lib/file", ("app::/", "lib::/lib", "lib/file::/one::ro")),
}


def test_a_reload_that_cannot_take_writing_back_is_refused(place: Path) -> None:
    mount = Configured(place)
    mount.write("app::/", "lib::/lib")
    with mounted(place, options=["--config", str(mount.file)]) as top:
        for case, (name, wanted) in TAKES_BACK.items():
            writer = os.open(top / name, os.O_RDWR)
            mount.write(*wanted)
            line = complaint(attempt("reload", str(top)), 1)
            assert "is open for writing past the daemon" in line, case
            assert "have the guest close it, or mount with --passthrough off" in line
            assert os.pwrite(writer, b"still", 0) == 5
            os.close(os.open(top / name, os.O_RDWR))
            os.close(writer)
            assert wait_until(lambda: told(top)["files"] == 0)
            overlayd("reload", str(top))
            for flags in WRITING:
                assert outcome(os.open, top / name, flags) == "EROFS", case
            mount.write("app::/", "lib::/lib")
            overlayd("reload", str(top))


def test_what_it_leaves_writable_is_no_reason(place: Path) -> None:
    mount = Configured(place)
    mount.write("app::/", "lib::/lib")
    with mounted(place, options=["--config", str(mount.file)]) as top:
        writer = os.open(top / "file", os.O_RDWR)
        reader = os.open(top / "lib/file", os.O_RDONLY)
        mount.write("app::/", "lib::/lib::ro")
        overlayd("reload", str(top))
        assert os.pwrite(writer, b"APP", 0) == 3
        assert os.pread(reader, 3, 0) == b"lib"
        assert outcome(os.open, top / "lib/file", os.O_RDWR) == "EROFS"
        mount.write("app::/", "lib::/lib")
        overlayd("reload", str(top))
        second = os.open(top / "lib/file", os.O_RDWR)  # while a reader of before has it open
        assert os.pwrite(second, b"LIB", 0) == 3
        assert os.pread(reader, 3, 0) == b"LIB"
        for fd in (writer, reader, second):
            os.close(fd)
        assert "can be written to until closed" not in Path(f"{top}.log").read_text()

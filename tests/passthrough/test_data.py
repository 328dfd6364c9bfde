"""What is read, written and mapped is the host's own file, at every moment and for everybody."""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from passthrough.mounts import LARGE, WAYS, asked, going, passing, told
from support.live import kill, make_target, mount
from support.mounting import overlayd
from support.planting import plant
from support.processes import in_child, outcome, wait_until

APPENDER = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
for number in range(500):
    os.write(fd, sys.argv[2].encode() * 15 + b"\\n")
"""


def a_mapping_is_shared_with_the_host(source: Path, top: Path) -> None:
    plant(source, "file=" + "x" * 8192)
    with (
        (top / "file").open("r+b") as guest,
        (source / "file").open("r+b") as host,
        mmap.mmap(guest.fileno(), 8192) as ours,
        mmap.mmap(host.fileno(), 8192) as theirs,
    ):
        ours[5000:5005] = b"guest"
        assert theirs[5000:5005] == b"guest"
        theirs[0:4] = b"host"
        assert ours[0:4] == b"host"
        assert os.pread(guest.fileno(), 4, 0) == b"host"
        os.pwrite(guest.fileno(), b"call", 100)
        assert theirs[100:104] == ours[100:104] == b"call"


def truncated_while_it_is_mapped(source: Path, top: Path) -> None:
    """As on the host: what lies behind the end is SIGBUS, and zeros once it is there again."""
    plant(source, "file=" + "x" * 8192)
    with (
        (top / "file").open("r+b") as file,
        mmap.mmap(file.fileno(), 8192) as view,
    ):
        os.truncate(top / "file", 100)
        assert view[:101] == b"x" * 100 + b"\0"
        child = os.fork()
        if child == 0:
            faulthandler.disable()
            _ = view[5000]
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGBUS
        os.truncate(source / "file", 8192)
        assert view[5000] == 0
        assert os.fstat(file.fileno()).st_size == 8192


def truncated_on_opening(source: Path, top: Path) -> None:
    plant(source, "file=xxxx")
    with (top / "file").open("rb") as reader:
        with (top / "file").open("wb") as writer:
            assert os.fstat(reader.fileno()).st_size == 0
            writer.write(b"new")
        assert reader.read() == b"new"


def removed_while_it_is_open(source: Path, top: Path) -> None:
    plant(source, "file=before")
    with (top / "file").open("r+b", 0) as file:
        (top / "file").unlink()
        assert file.write(b"after!") == 6
        file.seek(0)
        assert file.read() == b"after!"
        assert os.fstat(file.fileno()).st_nlink == 0
        (top / "file").write_text("another")
        assert file.seek(0) == 0 and file.read() == b"after!"
        assert (top / "file").read_text() == "another"


def replaced_on_the_host(source: Path, top: Path) -> None:
    plant(source, "file=before", "new=after")
    with (top / "file").open("r+b", 0) as file:
        (source / "new").rename(source / "file")
        assert wait_until(lambda: (top / "file").read_bytes() == b"after", seconds=1)
        assert file.read() == b"before"
        file.write(b"!")
    assert (source / "file").read_text() == "after"


def a_reader_first_and_then_a_writer(source: Path, top: Path) -> None:
    """Registered by an open that only reads; the kernel opens it anew for each."""
    before = asked(top.parent, "read", "write")
    plant(source, "file=" + "before" * LARGE)
    with (top / "file").open("rb", 0) as reader:
        with (top / "file").open("r+b", 0) as writer:
            writer.write(b"after!")
            assert outcome(os.write, reader.fileno(), b"x") == "EBADF"
        assert reader.read(12) == b"after!before"
        assert asked(top.parent, "read", "write") == before


def sparse_and_beyond_four_gigabytes(source: Path, top: Path) -> None:
    plant(source, "file=x")
    with (top / "file").open("r+b", 0) as file:
        far = (5 << 30) + 3
        assert os.pwrite(file.fileno(), b"far", far) == 3
        assert os.pread(file.fileno(), 6, far - 3) == b"\0\0\0far"
        status = (top / "file").stat()
        assert status.st_size == far + 3 and status.st_blocks < 1000


def past_the_page_cache(source: Path, top: Path) -> None:
    before = asked(top.parent, "read", "write")
    plant(source, "file=" + "x" * 8192)
    fd = os.open(top / "file", os.O_RDWR | os.O_DIRECT)
    with mmap.mmap(-1, 4096) as page:
        page[:] = b"y" * 4096
        assert os.pwritev(fd, [page], 4096) == 4096
        assert os.preadv(fd, [page], 0) == 4096 and page[:] == b"x" * 4096
    os.close(fd)
    assert asked(top.parent, "read", "write") == before
    assert (source / "file").read_text() == "x" * 4096 + "y" * 4096


def synchronised(source: Path, top: Path) -> None:
    plant(source, "file=x")
    with (top / "file").open("r+b", 0) as file:
        file.write(b"y")
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())


USES = (
    a_mapping_is_shared_with_the_host,
    truncated_while_it_is_mapped,
    truncated_on_opening,
    removed_while_it_is_open,
    replaced_on_the_host,
    a_reader_first_and_then_a_writer,
    sparse_and_beyond_four_gigabytes,
    past_the_page_cache,
    synchronised,
)


def test_each_use_of_a_file(tmp_path: Path) -> None:
    source = plant(tmp_path / "source")
    with passing(tmp_path, f"{source}::/") as top:
        for use in USES:
            use(source / use.__name__, top / use.__name__)


def test_the_daemon_is_not_asked(tmp_path: Path) -> None:
    source = plant(tmp_path / "source", "file=" + "x" * LARGE)
    with passing(tmp_path, f"{source}::/") as top:
        (top / "new").write_bytes(b"y" * 300_000)
        assert (top / "new").read_bytes() == b"y" * 300_000
        assert len((top / "file").read_bytes()) == LARGE
        assert asked(top, "read", "write") == 0
        assert told(top)["opened"] == 3


@pytest.mark.parametrize("way", WAYS)
def test_two_guests_append(tmp_path: Path, way: str) -> None:
    """Through two mounts, so that no kernel inode puts them in order."""
    source = plant(tmp_path / "source", "log=")
    with (
        going(way, tmp_path, f"{source}::/") as one,
        going(way, tmp_path, f"{source}::/") as two,
    ):
        writers = [
            subprocess.Popen([sys.executable, "-c", APPENDER, str(top / "log"), letter])
            for top, letter in ((one, "a"), (two, "b"), (one, "c"))
        ]
        assert [writer.wait(30) for writer in writers] == [0, 0, 0]
        assert (one / "log").stat().st_size == (two / "log").stat().st_size == 1500 * 16
    lines = (source / "log").read_text().splitlines()
    assert sorted({(line[0] * 15 == line, line[0]) for line in lines}) == [
        (True, "a"),
        (True, "b"),
        (True, "c"),
    ]
    assert len(lines) == 1500


@pytest.mark.parametrize("way", WAYS)
def test_a_program_runs_from_it(tmp_path: Path, way: str) -> None:
    source = plant(tmp_path / "source", "bin/")
    with going(way, tmp_path, f"{source}::/") as top:
        (top / "bin/true").write_bytes(Path("/bin/true").read_bytes())
        (top / "bin/true").chmod(0o755)
        assert in_child(lambda: subprocess.run([top / "bin/true"], check=False).returncode) == 0
        writer = os.open(top / "bin/true", os.O_WRONLY)
        assert outcome(os.execv, top / "bin/true", ["true"]) == "ETXTBSY"
        os.close(writer)


def test_what_is_small_and_only_read_stays_with_the_kernel(tmp_path: Path) -> None:
    """Else it would ask for the access time whenever the file is looked at next."""
    source = plant(tmp_path / "source", "small=small")
    with passing(tmp_path, f"{source}::/") as top:

        def again() -> int:
            before = asked(top, "read", "getattr", "lookup")
            assert (top / "small").read_bytes() == b"small"
            os.stat(top / "small")
            return asked(top, "read", "getattr", "lookup") - before

        assert wait_until(lambda: again() == 0, seconds=5)
        assert told(top)["opened"] == 0
        with (top / "small").open("r+b", 0) as writer:
            writer.write(b"SMALL")
            assert (told(top)["opened"], asked(top, "write")) == (1, 0)
        assert (top / "small").read_bytes() == b"SMALL"
    with passing(tmp_path, f"{source}::/", options=["--cache", "none"]) as top:
        assert (top / "small").read_bytes() == b"SMALL"
        assert (told(top)["opened"], asked(top, "read")) == (1, 0)


def test_what_is_open_outlives_the_daemon(tmp_path: Path) -> None:
    source, target = plant(tmp_path / "source", "file=before"), make_target(tmp_path)
    daemon = mount(target, source)
    file = os.open(target / "file", os.O_RDWR)
    kill(daemon)
    assert outcome(os.listdir, target) in ("ENOTCONN", "ECONNABORTED")
    assert os.pwrite(file, b"after!", 0) == 6
    assert os.pread(file, 10, 0) == b"after!"
    assert outcome(os.close, file) in ("ok", "ENOTCONN")  # there is nobody to tell
    assert (source / "file").read_text() == "after!"
    overlayd("umount", str(target))

"""What the kernel takes of each kind of source, and that guests see no difference."""

from __future__ import annotations

import mmap
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from passthrough.mounts import LARGE, WAYS, going, passes, passing, told
from support.loop_disk import ext4
from support.mounting import mounted, overlayd
from support.planting import plant
from support.processes import outcome

PLANTED = ("file=before", "dir/large=" + "x" * LARGE)


@contextmanager
def host_mount(top: Path, *words: str) -> Iterator[Path]:
    top.mkdir(exist_ok=True)
    subprocess.run(["mount", *words, str(top)], check=True)
    try:
        yield top
    finally:
        subprocess.run(["umount", str(top)], check=True)


@contextmanager
def on_tmpfs(place: Path) -> Iterator[Path]:
    with host_mount(place / "tmpfs", "-t", "tmpfs", "tmpfs") as top:
        yield plant(top, *PLANTED)


@contextmanager
def on_ext4(place: Path) -> Iterator[Path]:
    with ext4(place, mib=16) as top:
        yield plant(top, *PLANTED)


@contextmanager
def on_overlayfs(place: Path) -> Iterator[Path]:
    """Everything in it lies in the layer below, from where it is copied up when it is changed."""
    with host_mount(place / "layers", "-t", "tmpfs", "tmpfs") as layers:
        lower = plant(layers / "lower", *PLANTED)
        upper, work = plant(layers / "upper"), plant(layers / "work")
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        with host_mount(place / "overlay", "-t", "overlay", "-o", options, "overlay") as top:
            yield top


@contextmanager
def on_fuse(place: Path) -> Iterator[Path]:
    with mounted(place, f"{plant(place / 'below', *PLANTED)}::/") as top:
        yield top


KINDS: dict[str, tuple[Callable[[Path], AbstractContextManager[Path]], bool]] = {
    "tmpfs": (on_tmpfs, True),
    "ext4": (on_ext4, True),
    "overlayfs": (on_overlayfs, True),
    "another FUSE": (on_fuse, False),
}


def use(top: Path, source: Path) -> None:
    """Everything that is done with files, against what the host has."""
    with (top / "file").open("r+b", 0) as file, (top / "file").open("rb", 0) as reader:
        assert reader.read() == b"before"
        file.write(b"after!" * 1000)
        assert os.pread(reader.fileno(), 6, 5994) == b"after!"
        with mmap.mmap(file.fileno(), 4096) as view:
            view[:5] = b"AFTER"
            view.flush()
        assert os.pread(reader.fileno(), 6, 0) == b"AFTER!"
        os.fsync(file.fileno())
    assert (source / "file").read_bytes() == (top / "file").read_bytes()
    with (top / "file").open("ab") as file:
        file.write(b"more")
    assert (top / "file").stat().st_size == (source / "file").stat().st_size == 6004
    (top / "new").write_bytes(b"new" * 10_000)
    assert (source / "new").read_bytes() == b"new" * 10_000
    (top / "file").write_text("short")
    assert (source / "file").read_text() == "short"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_source(tmp_path: Path, kind: str, way: str) -> None:
    make, is_taken = KINDS[kind]
    expected = is_taken and way == "require"
    with make(tmp_path) as source:
        with going(way, tmp_path, f"{source}::/") as top:
            assert passes(top / "dir/large", top) is expected
            use(top, source)
            assert (told(top)["opened"] > 0) is expected
        with going(way, tmp_path, f"{source}::/::ro") as top:
            assert passes(top / "dir/large", top) is expected
            assert (top / "dir/large").read_text() == "x" * LARGE
            assert outcome((top / "dir/large").open, "r+b") == "EROFS"


def test_files_that_are_stacked_too_high_are_counted(tmp_path: Path) -> None:
    """An overlayfs that is met below a source: the mount was made without a layer for it."""
    source = plant(tmp_path / "source", "file=plain")
    with on_overlayfs(tmp_path / "source") as stacked, passing(tmp_path, f"{source}::/") as top:
        place = top / stacked.relative_to(source)
        assert passes(top / "file", top, "r+b")
        assert not passes(place / "file", top, "r+b")
        use(place, stacked)
        assert told(top)["refused"] == {"ELOOP": told(top)["refused"]["ELOOP"]}
        assert told(top)["on"]
        assert 'overlayd_passthrough_refused_total{errno="ELOOP"' in overlayd("status", "--metrics")
        log = Path(f"{top}.log").read_text()
        assert log.count("files are read and written through the daemon") == 1


@pytest.mark.parametrize("way", WAYS)
def test_without_a_source_on_overlayfs_the_mount_can_be_a_layer_of_one(
    tmp_path: Path, way: str
) -> None:
    source = plant(tmp_path / "source", *PLANTED)
    layers = host_mount(tmp_path / "layers", "-t", "tmpfs", "tmpfs")
    with going(way, tmp_path, f"{source}::/") as top, layers as place:
        upper, work = plant(place / "upper"), plant(place / "work")
        options = f"lowerdir={top},upperdir={upper},workdir={work}"
        with host_mount(tmp_path / "over", "-t", "overlay", "-o", options, "overlay") as over:
            assert (over / "file").read_text() == "before"
            (over / "file").write_text("after")
            assert (top / "file").read_text() == "before"

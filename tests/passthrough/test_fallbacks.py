"""Where the kernel cannot pass the daemon by: nothing else changes, and it is said why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aliases.private_mounts import in_private_mounts, open_fuse_device
from passthrough.mounts import all_closed, asked, passing, told
from passthrough.test_kinds_of_source import use
from support.live import make_target
from support.mounting import is_mounted, mounted, overlayd
from support.planting import plant
from support.processes import NOBODY, attempt, complaint, wait_until

NO_EXTENSION = "the C extension is not in use: switched off by OVERLAYD_WIRE"
NO_RIGHT = "it needs CAP_SYS_ADMIN, which the daemon lacks"
REFUSED = "passthrough is required, and cannot be had"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return plant(tmp_path / "source", "file=before", "dir/other=other")


def test_switched_off(source: Path, tmp_path: Path) -> None:
    with mounted(tmp_path, f"{source}::/", options=["--passthrough", "off"]) as top:
        use(top, source)
        assert asked(top, "read") > 0 and asked(top, "write") > 0
        said = told(top)
        assert (said["on"], said["obstacle"]) == (False, "switched off")
        assert (said["opened"], said["refused"]) == (0, {})
        assert "data:       through the daemon: switched off\n" in overlayd("status", str(top))


def test_without_the_extension(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVERLAYD_WIRE", "off")
    with mounted(tmp_path, f"{source}::/") as top:
        use(top, source)
        assert told(top)["obstacle"] == NO_EXTENSION
        assert f"through the daemon: {NO_EXTENSION}\n" in Path(f"{top}.log").read_text()
    target = make_target(tmp_path)
    done = attempt("mount", "--dir", f"{source}::/", "--passthrough", "require", str(target))
    assert f"{REFUSED}: {NO_EXTENSION}" in complaint(done, 1)
    assert not os.path.ismount(target)


def test_without_the_capability(open_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user mounts through fusermount3, and the kernel takes no file of the daemon's."""
    place = open_path / "nobody"
    for directory in (place, place / "source", place / "target"):
        directory.mkdir()
        os.chown(directory, NOBODY.uid, NOBODY.gid)
    monkeypatch.setenv("OVERLAYD_RUNTIME_DIR", str(place / "run"))
    in_private_mounts(lambda: mount_as_nobody(open_path, str(place / "source"), place / "target"))


def mount_as_nobody(place: Path, source: str, target: Path) -> None:
    """With a device that a user may open, whatever the machine's own is like."""
    open_fuse_device(place / "device")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return attempt(*words, str(target), user=NOBODY)

    required = run("mount", "--dir", f"{source}::/", "--passthrough", "require")
    assert f"{REFUSED}: {NO_RIGHT}" in complaint(required, 1)
    assert not is_mounted(target)
    done = run("mount", "--dir", f"{source}::/")
    assert (done.returncode, done.stderr) == (0, "")
    try:
        assert f"through the daemon: {NO_RIGHT}\n" in run("status").stdout
    finally:
        assert run("umount").returncode == 0


def test_root_of_a_container_without_the_right_over_the_machine(
    source: Path, tmp_path: Path
) -> None:
    """It has CAP_SYS_ADMIN in a user namespace of its own, where it may mount, and no more."""
    target = make_target(tmp_path)
    code = """
import os, subprocess, sys
def run(*words):
    command = [sys.executable, "-m", "overlayd", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    return done.returncode
source, target = sys.argv[1:]
run("mount", "--dir", f"{source}::/", "--passthrough", "require", target)
assert not os.path.ismount(target)
assert run("mount", "--dir", f"{source}::/", target) == 0
run("status", target)
open(f"{target}/new", "w").write("new")
assert open(f"{source}/new").read() == "new"
assert run("umount", target) == 0
"""
    words = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", code]
    done = subprocess.run(
        [*words, str(source), str(target)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"{REFUSED}: {NO_RIGHT}" in done.stdout
    assert f"through the daemon: {NO_RIGHT}" in done.stdout


def test_one_mode_after_the_other(source: Path, tmp_path: Path) -> None:
    """What is open goes on as it was opened, and whoever joins it follows."""
    config = tmp_path / "overlayd.toml"
    table = f'[[dir]]\nhost = "{source}"\nguest = "/"\n'

    def reload(mode: str) -> str:
        config.write_text(f'passthrough = "{mode}"\n{table}')
        return overlayd("reload", str(top))

    config.write_text(table)
    with mounted(tmp_path, options=["--config", str(config)]) as top:
        with (top / "file").open("r+b", 0) as past_us:
            assert reload("off") == "passthrough: auto, now off\n"
            past_us.write(b"after!")
            with (top / "file").open("rb", 0) as follower:
                assert follower.read() == b"after!"
            assert (told(top)["files"], asked(top, "read", "write")) == (1, 0)
            with (top / "dir/other").open("r+b", 0) as through_us:
                assert through_us.read() == b"other"
                assert asked(top, "read") > 0
                assert reload("require") == "passthrough: off, now require\n"
                before = asked(top, "write")
                through_us.write(b"!")
                with (top / "dir/other").open("ab", 0) as follower:
                    follower.write(b"!")
                assert asked(top, "write") == before + 2
                assert told(top)["files"] == 1
        assert wait_until(lambda: told(top)["files"] == 0)
        before = asked(top, "read")
        with (top / "dir/other").open("r+b") as file:
            assert file.read() == b"other!!"
        assert asked(top, "read") == before
        assert all_closed(top)


def test_what_was_made_without_needs_a_new_mount(source: Path, tmp_path: Path) -> None:
    config = tmp_path / "overlayd.toml"
    table = f'[[dir]]\nhost = "{source}"\nguest = "/"\n'
    config.write_text(f'passthrough = "off"\n{table}')
    with mounted(tmp_path, options=["--config", str(config)]) as top:
        config.write_text(table)
        assert "passthrough" in overlayd("reload", str(top))
        assert told(top)["obstacle"] == "switched off"
        (top / "file").write_text("after")
        assert asked(top, "write") == 1


def test_required(source: Path, tmp_path: Path) -> None:
    with passing(tmp_path, f"{source}::/") as top:
        said = told(top)
        assert (said["on"], said["obstacle"]) == (True, "")
        assert "by the kernel, past the daemon\n" in Path(f"{top}.log").read_text()
        with (top / "file").open("r+b"):
            assert "past the daemon; 1 files open so\n" in overlayd("status", str(top))


def test_said_beforehand(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dirs = ["--dir", f"{source}::/"]
    assert overlayd("check", "-v", *dirs).endswith("\ndata: past the daemon, by the kernel\n")
    assert "data" not in overlayd("check", *dirs)
    with mounted(tmp_path, f"{source}::/") as top:
        dirs += ["--dir", f"{top}/dir::/fuse"]
        said = overlayd("check", "-v", *dirs)
        assert "/fuse: through the daemon: its source lies on fuse.overlayd\n" in said
        answer = json.loads(overlayd("check", "-v", "--json", *dirs))["data"]
        assert answer == {"obstacle": "", "through_the_daemon": {"/fuse": "fuse.overlayd"}}
    monkeypatch.setenv("OVERLAYD_WIRE", "off")
    assert f"data: through the daemon: {NO_EXTENSION}\n" in overlayd("check", "-v", *dirs[:2])

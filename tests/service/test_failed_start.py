"""A mount that cannot be: exit 1, one line that names the cure, and nothing is mounted."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.live import make_dirs, make_target
from support.mounting import is_mounted
from support.processes import NOBODY, User, attempt, command, command_as, complaint

both_ways = pytest.mark.parametrize("flags", [(), ("-f",)], ids=["daemon", "foreground"])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_dirs(tmp_path, "source")[0]


@both_ways
def test_the_target_is_missing(source: Path, tmp_path: Path, flags: Sequence[str]) -> None:
    target = tmp_path / "missing one"
    line = complaint(attempt("mount", *flags, "--dir", f"{source}::/", str(target)), 1)
    assert line.endswith(f"mkdir -p '{target}'")
    assert not target.exists()


@both_ways
def test_the_target_is_not_empty(source: Path, tmp_path: Path, flags: Sequence[str]) -> None:
    target = make_target(tmp_path)
    (target / "here-before").touch()
    line = complaint(attempt("mount", *flags, "--dir", f"{source}::/", str(target)), 1)
    assert str(target) in line and "not empty" in line and "nonempty" in line
    assert not is_mounted(target)


@both_ways
def test_the_target_is_a_file(source: Path, tmp_path: Path, flags: Sequence[str]) -> None:
    target = tmp_path / "plain"
    target.touch()
    line = complaint(attempt("mount", *flags, "--dir", f"{source}::/", str(target)), 1)
    assert f"{target} is not a directory" in line


def test_the_target_is_a_dangling_link(source: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    line = complaint(attempt("mount", "--dir", f"{source}::/", str(tmp_path / "link")), 1)
    assert f"{tmp_path}/nowhere does not exist" in line


def test_the_target_lies_below_a_file(source: Path) -> None:
    complaint(attempt("mount", "--dir", f"{source}::/", str(source / "file/target")), 1)


@pytest.mark.parametrize("most", [1, 2])
@pytest.mark.parametrize("dirs", [(), ("--dir", "/no such::/")], ids=["right", "wrong"])
def test_no_process_for_the_daemon(open_path: Path, most: int, dirs: Sequence[str]) -> None:
    """Of the two that it takes one after the other; and where none will be needed."""
    (source,) = make_dirs(open_path, "source")
    done = attempt(
        *("run", *dirs, "--dir", f"{source}::/source", "--", "true"),
        user=User(54321, 54321),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (most, most)),
    )
    line = complaint(done, 2 if dirs else 1)
    words = {1: "resource temporarily", 2: "unexpected BlockingIOError: [Errno 11] Resource"}[most]
    assert ("/no such" if dirs else words) in line


def without_fuse(hide: str, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run WORDS in a mount namespace of their own, in which HIDE was done to /dev/fuse."""
    inner = f'set -e; {hide}; exec "$@"'
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", inner, "sh", *words],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


HIDDEN = {
    "missing": "mount -t tmpfs none /dev",
    "another device": "mount --bind /dev/null /dev/fuse",
    "a plain file": "mount -t tmpfs none /dev; touch /dev/fuse",
}


@both_ways
@pytest.mark.parametrize("hide", HIDDEN.values(), ids=HIDDEN.keys())
def test_there_is_no_fuse_device(
    source: Path, tmp_path: Path, hide: str, flags: Sequence[str]
) -> None:
    target = make_target(tmp_path)
    words = command("mount", *flags, "--dir", f"{source}::/", str(target))
    inner = '"$@"; status=$?; grep -qF " $0 " /proc/self/mountinfo && exit 99; exit $status'
    line = complaint(without_fuse(hide, ["sh", "-c", inner, str(target), *words]), 1)
    assert "/dev/fuse" in line or "cannot be mounted" in line


def test_run_without_a_fuse_device_runs_nothing(source: Path, tmp_path: Path) -> None:
    words = command("run", "--dir", f"{source}::/", "--", "touch", str(tmp_path / "ran"))
    assert "/dev/fuse" in complaint(without_fuse(HIDDEN["missing"], words), 1)
    assert not (tmp_path / "ran").exists()
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []


def test_check_and_explain_need_no_fuse_device(source: Path) -> None:
    for words in (["check"], ["explain", "/file"]):
        line = command(words[0], "--dir", f"{source}::/", *words[1:])
        done = without_fuse(HIDDEN["missing"], line)
        assert (done.returncode, done.stderr) == (0, "")


def test_no_permission_and_no_helper(open_path: Path) -> None:
    (source,), target = make_dirs(open_path, "source"), make_target(open_path)
    os.chown(target, NOBODY.uid, NOBODY.gid)
    environment = {
        **os.environ,
        "PATH": str(open_path),
        "OVERLAYD_RUNTIME_DIR": str(open_path / "run"),
    }
    # Everybody may open the device here, so that only the helper is missing.
    opened = "mount -t tmpfs -o mode=755 none /dev; mknod -m 666 /dev/fuse c 10 229"
    inner = f'set -e; {opened}; export PATH={open_path}; exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", inner, "sh"]
        + command_as(NOBODY, "mount", "--dir", f"{source}::/", str(target)),
        env={**environment, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "fusermount3" in complaint(done, 1)


def test_no_permission_for_the_device(open_path: Path) -> None:
    (source,), target = make_dirs(open_path, "source"), make_target(open_path)
    os.chown(target, NOBODY.uid, NOBODY.gid)
    closed = "mount -t tmpfs -o mode=755 none /dev; mknod -m 600 /dev/fuse c 10 229"
    inner = f'set -e; {closed}; exec "$@"'
    words = command_as(NOBODY, "mount", "--dir", f"{source}::/", str(target))
    done = without_fuse("true", ["sh", "-c", inner, "sh"] + words)
    line = complaint(done, 1)
    assert "/dev/fuse cannot be opened: permission denied" in line


@both_ways
def test_the_runtime_directory_cannot_be_used(
    source: Path, tmp_path: Path, flags: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found out after the mount: it is taken off again."""
    target = make_target(tmp_path)
    monkeypatch.setenv("OVERLAYD_RUNTIME_DIR", str(source / "file"))
    line = complaint(attempt("mount", *flags, "--dir", f"{source}::/", str(target)), 1)
    assert str(source / "file") in line and "OVERLAYD_RUNTIME_DIR" in line
    assert not is_mounted(target)


def test_the_runtime_directory_belongs_to_somebody_else(
    open_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source,), target = make_dirs(open_path, "source"), make_target(open_path)
    (open_path / "run").mkdir()
    os.chown(open_path / "run", NOBODY.uid, NOBODY.gid)
    monkeypatch.setenv("OVERLAYD_RUNTIME_DIR", str(open_path / "run"))
    line = complaint(attempt("mount", "--dir", f"{source}::/", str(target)), 1)
    assert "OVERLAYD_RUNTIME_DIR" in line
    assert not is_mounted(target)


@both_ways
def test_the_log_file_cannot_be_written(source: Path, tmp_path: Path, flags: Sequence[str]) -> None:
    target = make_target(tmp_path)
    words = ["mount", *flags, "--log-file", str(tmp_path / "missing/log"), "--dir", f"{source}::/"]
    assert "--log-file" in complaint(attempt(*words, str(target)), 1)
    assert not is_mounted(target)


def test_root_without_the_right_to_mount(source: Path, tmp_path: Path) -> None:
    """As in a container without CAP_SYS_ADMIN, where libfuse would miss fusermount3."""
    target = make_target(tmp_path)
    words = command("mount", "--dir", f"{source}::/", str(target))
    done = subprocess.run(
        ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", *words],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    line = complaint(done, 1)
    assert "mounting needs CAP_SYS_ADMIN" in line and "--cap-add SYS_ADMIN" in line
    assert not is_mounted(target)

"""`overlayd umount`: waits for the daemon, and touches nothing that is not overlayd's."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from support.live import kill, make_dirs, make_target, mount
from support.mounting import detach, is_mounted
from support.processes import NOBODY, attempt, complaint, ends, has_ended


def test_it_waits_for_the_daemon(tmp_path: Path, runtime_directory: Path) -> None:
    """Also for one that has gone deaf for a moment: what it holds is free afterwards."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    daemon = mount(target, source)
    os.kill(daemon, signal.SIGSTOP)
    waker = subprocess.Popen(["sh", "-c", f"sleep 1; kill -CONT {daemon}"])
    assert attempt("umount", str(target)).returncode == 0
    assert has_ended(daemon)
    assert waker.wait(10) == 0
    assert list(runtime_directory.iterdir()) == []


def test_a_relative_path_and_a_trailing_slash(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    mount(target, source)
    assert attempt("umount", "target/", cwd=tmp_path).returncode == 0
    assert not is_mounted(target)


def test_a_path_through_a_symbolic_link(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    (tmp_path / "elsewhere").symlink_to(tmp_path)
    (tmp_path / "shortcut").symlink_to(target)
    mount(target, source)
    assert attempt("umount", str(tmp_path / "elsewhere/target")).returncode == 0
    done = attempt("mount", "--dir", f"{source}::/", str(tmp_path / "shortcut"))
    assert done.returncode == 0, done.stderr
    assert (target / "file").read_text() == "source"
    assert attempt("umount", str(tmp_path / "shortcut")).returncode == 0
    assert not is_mounted(target)


def test_names_that_mountinfo_escapes(tmp_path: Path) -> None:
    (source,) = make_dirs(tmp_path, "sou rce\t\\040")
    target = make_target(tmp_path, "tar get\n\\134#é")
    done = attempt("mount", "--dir", f"{source}::/", str(target))
    assert done.returncode == 0, done.stderr
    assert (target / "file").exists()
    assert attempt("umount", str(target)).returncode == 0
    assert not is_mounted(target)


@pytest.mark.usefixtures("data_way")
def test_a_busy_mount_stays_unless_lazy(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    daemon = mount(target, source)
    with (target / "file").open() as held:
        line = complaint(attempt("umount", str(target)), 1)
        assert "busy" in line and "--lazy" in line and str(target) in line
        assert (target / "file").read_text() == "source"
        assert attempt("umount", "--lazy", str(target)).returncode == 0
        assert not is_mounted(target)
        assert held.read() == "source"  # who has it open goes on
        assert not has_ended(daemon)
    assert ends(daemon)


def test_lazy_on_a_mount_nobody_uses(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    daemon = mount(target, source)
    assert attempt("umount", "--lazy", str(target)).returncode == 0
    assert ends(daemon)


def test_what_is_not_mounted(tmp_path: Path) -> None:
    target = make_target(tmp_path)
    for path in (target, tmp_path / "missing", tmp_path / "missing/deeper"):
        line = complaint(attempt("umount", str(path)), 1)
        assert f"{path} is not mounted" in line


def test_a_directory_inside_a_mount_is_not_the_mount(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    (source / "inside").mkdir()
    mount(target, source)
    assert "is not mounted" in complaint(attempt("umount", str(target / "inside")), 1)
    assert attempt("umount", str(target)).returncode == 0


@pytest.mark.parametrize("options", [(), ("--lazy",)])
def test_a_mount_of_another_file_system_is_refused(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    target = make_target(tmp_path)
    subprocess.run(["mount", "-t", "tmpfs", "theirs", str(target)], check=True)
    try:
        line = complaint(attempt("umount", *options, str(target)), 1)
        assert "tmpfs" in line and "none of overlayd's" in line
        assert is_mounted(target)
    finally:
        detach(target)


def test_another_users_mount_is_refused(open_path: Path) -> None:
    """It says what is missing, and not that the mount is busy."""
    (source,), target = make_dirs(open_path, "source"), make_target(open_path)
    mount(target, source)
    line = complaint(attempt("umount", str(target), user=NOBODY), 1)
    assert "busy" not in line
    assert "permitted" in line or "root" in line or "user" in line
    assert is_mounted(target)
    assert attempt("umount", str(target)).returncode == 0


def test_after_the_daemon_was_killed_nothing_is_left(
    tmp_path: Path, runtime_directory: Path
) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    kill(mount(target, source))
    assert {entry.suffix for entry in runtime_directory.iterdir()} == {".json", ".sock"}
    assert attempt("umount", str(target)).returncode == 0
    assert list(runtime_directory.iterdir()) == []


def test_a_copy_in_another_mount_namespace_does_not_hold_it_up(tmp_path: Path) -> None:
    """Such a copy keeps the file system alive in the kernel; nobody uses it here any more."""
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    daemon = mount(target, source)
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec sleep 60"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as elsewhere:
        assert elsewhere.stdout is not None
        elsewhere.stdout.readline()
        done = attempt("umount", str(target))
        assert (done.returncode, done.stderr) == (0, "")
        assert has_ended(daemon)
        elsewhere.kill()


def test_a_mount_of_another_subtype_is_still_known_as_ours(tmp_path: Path) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    kill(mount(target, source, "-o", "subtype=other"))
    mount(target, source, "-o", "subtype=other")
    assert (target / "file").read_text() == "source"
    assert attempt("umount", str(target)).returncode == 0
    assert not is_mounted(target)


def test_a_relative_runtime_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source,), target = make_dirs(tmp_path, "source"), make_target(tmp_path)
    monkeypatch.setenv("OVERLAYD_RUNTIME_DIR", "run")
    line = complaint(attempt("mount", "--dir", f"{source}::/", str(target)), 1)
    assert "OVERLAYD_RUNTIME_DIR=run" in line and "absolute" in line
    assert not is_mounted(target)

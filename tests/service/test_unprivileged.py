"""An ordinary user mounts through fusermount3: everything happens with that user's own rights."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aliases.private_mounts import open_fuse_device
from support.live import make_dirs, make_target
from support.mounting import is_mounted
from support.processes import NOBODY, User, attempt, command_as, complaint, ends, in_child, tried

STRANGER = User(64001, 64001)


class Account:
    """An ordinary user with directories of its own."""

    def __init__(self, place: Path) -> None:
        self.source, other = make_dirs(place, "source", "secret")
        self.target = make_target(place)
        (place / "run").mkdir()
        for path in (self.source, self.source / "file", self.target, place / "run"):
            os.chown(path, NOBODY.uid, NOBODY.gid)
        (other / "file").chmod(0o600)
        other.chmod(0o755)
        self.foreign = other
        self.environment = {**os.environ, "OVERLAYD_RUNTIME_DIR": str(place / "run")}

    def overlayd(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run overlayd as this user."""
        return attempt(*words, user=NOBODY, env=self.environment)

    def mount(self, *options: str) -> None:
        """Mount the source, and another user's directory below it."""
        entries = ["--dir", f"{self.source}::/", "--dir", f"{self.foreign}::/foreign"]
        done = self.overlayd("mount", *entries, *options, str(self.target))
        assert (done.returncode, done.stderr) == (0, ""), done.stderr


@pytest.fixture
def account(open_path: Path) -> Iterator[Account]:
    """The user nobody; what lies at /dev/fuse is open to all for the time of the test."""
    open_fuse_device(open_path / "device")
    try:
        yield Account(open_path)
    finally:
        for place in ("/dev/fuse", open_path / "device"):
            subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=10)


def test_mount_use_and_umount(account: Account) -> None:
    account.mount()
    new = account.target / "new"

    def use() -> None:
        assert (account.target / "file").read_text() == "source"
        new.write_text("written")
        (account.target / "dir").mkdir()

    in_child(use, user=NOBODY)
    status = (account.source / "new").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (NOBODY.uid, NOBODY.gid, 0o644)
    assert (account.source / "dir").stat().st_uid == NOBODY.uid
    done = account.overlayd("umount", str(account.target))
    assert (done.returncode, done.stderr) == (0, "")
    assert not is_mounted(account.target)


def test_the_users_own_rights_are_the_limit(account: Account) -> None:
    account.mount()
    foreign = account.target / "foreign"
    assert in_child(lambda: os.listdir(foreign), user=NOBODY) == ["file"]
    for call in (
        lambda: (foreign / "file").read_text(),
        lambda: (foreign / "new").touch(),
        lambda: (foreign / "file").unlink(),
    ):
        assert tried(call, user=NOBODY) == "EACCES"
    assert tried(os.chmod, foreign / "file", 0o666, user=NOBODY) == "EPERM"
    assert account.overlayd("umount", str(account.target)).returncode == 0


def test_nobody_else_gets_in(account: Account) -> None:
    account.mount()
    for user in (STRANGER, User(0, 0)):
        assert tried(os.listdir, account.target, user=user) == "EACCES"
    assert account.overlayd("umount", str(account.target)).returncode == 0


def test_a_signal_unmounts(account: Account) -> None:
    account.mount()
    (record,) = Path(account.environment["OVERLAYD_RUNTIME_DIR"]).glob("*.json")
    daemon = json.loads(record.read_text())["pid"]
    os.kill(daemon, signal.SIGTERM)
    assert ends(daemon)
    assert not is_mounted(account.target)
    assert not record.exists()


def test_a_busy_mount(account: Account) -> None:
    account.mount()
    held = in_child_open(account)
    try:
        line = complaint(account.overlayd("umount", str(account.target)), 1)
        assert "busy" in line and "--lazy" in line
        assert account.overlayd("umount", "--lazy", str(account.target)).returncode == 0
        assert not is_mounted(account.target)
    finally:
        held.kill()
        held.communicate()


def in_child_open(account: Account) -> subprocess.Popen[str]:
    """A process of the user's with a file of the mount open."""
    process = subprocess.Popen(
        ["sh", "-c", f"exec 3< {account.target}/file; echo ready; exec sleep 20"],
        user=NOBODY.uid,
        group=NOBODY.gid,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def test_run(account: Account, open_path: Path) -> None:
    (open_path / "tmp").mkdir()
    os.chown(open_path / "tmp", NOBODY.uid, NOBODY.gid)
    account.environment["TMPDIR"] = str(open_path / "tmp")
    words = ["run", "--dir", f"{account.source}::/", "--", "cat", "{}/file"]
    done = account.overlayd(*words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "source", "")
    assert list((open_path / "tmp").iterdir()) == []


def test_a_target_that_is_not_the_users_own(account: Account, open_path: Path) -> None:
    target = make_target(open_path, "roots")
    line = complaint(account.overlayd("mount", "--dir", f"{account.source}::/", str(target)), 1)
    assert str(target) in line
    assert not is_mounted(target)


SAYS = "--allow-other needs the administrator's consent: have the line user_allow_other put into"


def with_fuse_conf(text: str, place: Path, *words: str) -> list[str]:
    """WORDS in a mount namespace whose /etc/fuse.conf says TEXT."""
    file = place / "fuse.conf"
    file.write_text(text)
    script = f'mount --bind {file} /etc/fuse.conf && exec "$@"'
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *words]


@pytest.mark.parametrize("option", [("--allow-other",), ("-o", "allow_other")])
def test_allow_other_needs_the_administrators_consent(
    account: Account, open_path: Path, option: tuple[str, ...]
) -> None:
    """It is said with the cure, before fusermount3 says it in its own words."""
    mount = ["mount", *option, "--dir", f"{account.source}::/", str(account.target)]
    words = with_fuse_conf("# user_allow_other\n", open_path, *command_as(NOBODY, *mount))
    done = subprocess.run(
        words, env=account.environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert complaint(done, 1).startswith(SAYS)
    run = ["run", "--allow-other", "--dir", f"{account.source}::/", "--", "true"]
    (open_path / "tmp").mkdir(mode=0o777)
    (open_path / "tmp").chmod(0o777)
    environment = {**account.environment, "TMPDIR": str(open_path / "tmp")}
    words = with_fuse_conf("", open_path, *command_as(NOBODY, *run))
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert complaint(done, 1).startswith(SAYS)
    assert list((open_path / "tmp").iterdir()) == []


def test_allow_other_with_the_administrators_consent(account: Account, open_path: Path) -> None:
    run = ["run", "--allow-other", "--dir", f"{account.source}::/", "--", "cat", "{}/file"]
    (open_path / "tmp").mkdir()
    (open_path / "tmp").chmod(0o777)
    environment = {**account.environment, "TMPDIR": str(open_path / "tmp")}
    words = with_fuse_conf("user_allow_other\n", open_path, *command_as(NOBODY, *run))
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "source", "")

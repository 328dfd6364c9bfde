"""The unit files themselves: systemd's own judgement, and what must never stand in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.machine import UNITS, Machine, settings

DAEMON = UNITS / "overlayd@.service"
GUEST = UNITS / "overlayd-guest@.service"
both = pytest.mark.parametrize("unit", [DAEMON, GUEST], ids=lambda unit: unit.name)

_NEVER = """
PrivateTmp PrivateIPC PrivatePIDs PrivateBPF PrivateDevices PrivateUsers ProtectSystem ProtectHome
ProtectProc ProcSubset ProtectKernelTunables ProtectKernelModules ProtectKernelLogs
ProtectControlGroups ReadOnlyPaths ReadWritePaths InaccessiblePaths ExecPaths NoExecPaths
ReadOnlyDirectories ReadWriteDirectories InaccessibleDirectories TemporaryFileSystem BindPaths
BindReadOnlyPaths BindLogSockets RootDirectory RootImage RootHash MountImages ExtensionImages
ExtensionDirectories MountAPIVFS MountFlags DynamicUser LogNamespace NetworkNamespacePath
JoinsNamespaceOf LoadCredential LoadCredentialEncrypted SetCredential SetCredentialEncrypted
ImportCredential RestrictSUIDSGID User
"""
NEVER = frozenset(_NEVER.split())
"""Settings that hide the mount, or keep the daemon from mounting or serving."""


def test_nothing_in_the_unit_hides_the_mount() -> None:
    given = settings(DAEMON)
    assert not set(given) & NEVER
    assert given["PrivateMounts"] == ["no"], "newer systemds take it from PrivateNetwork"
    assert given["DevicePolicy"] == ["closed"]
    assert given["DeviceAllow"] == ["/dev/fuse rw"]
    assert any("@mount" in value for value in given["SystemCallFilter"])


def test_the_unit_names_what_must_not_be_added() -> None:
    comments = [line for line in DAEMON.read_text().splitlines() if line.startswith("#")]
    named = set(re.findall(r"\w+", " ".join(comments)))
    older_names = {"ReadOnlyDirectories", "ReadWriteDirectories", "InaccessibleDirectories"}
    assert NEVER - older_names - {"User"} <= named


def test_the_target_lies_in_a_runtime_directory_and_is_none() -> None:
    given = settings(DAEMON)
    assert given["RuntimeDirectory"] == ["overlayd overlayd/mnt"]
    assert given["RuntimeDirectoryPreserve"] == ["yes"], "other instances live there"
    (start,) = given["ExecStart"]
    assert start.endswith(" /run/overlayd/mnt/%i")


@both
def test_systemd_has_nothing_to_say(machine: Machine, wasmtime: None, unit: Path) -> None:
    name = f"/etc/systemd/system/{unit.name.replace('@', '@x')}"
    # Whether the manual pages are installed is not a matter of the unit.
    done = machine.run("systemd-analyze", "verify", "--man=no", name, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@both
def test_exposure(machine: Machine, unit: Path) -> None:
    path = f"/etc/systemd/system/{unit.name}"
    done = machine.run(
        *("systemd-analyze", "security", "--offline=true", "--threshold=40", path), check=False
    )
    assert done.returncode == 0, done.stdout
    score = re.search(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert score is not None
    assert float(score[1]) <= 4.0

"""mount.overlayd: lines of fstab and `mount -t overlayd`, through mount(8) and umount(8).

mount(8) finds helpers in /sbin only: each test has one of its own, in its own mount namespace.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from aliases.private_mounts import in_private_mounts
from overlayd.cli.fstab import translate
from overlayd.errors import OverlaydError, UsageError
from support.live import make_dirs, make_target, type_and_name
from support.mounting import is_mounted
from support.processes import daemons_of, wait_until

HELPERS = ("mount.overlayd", "mount.fuse.overlayd")


def plant(place: Path) -> None:
    """Sources `app` and `a,b c`, targets `one` and `two`, a configuration file, and the helper."""
    make_dirs(place, "app", "lib", "a,b c")
    for name in ("one", "two"):
        make_target(place, name)
    (place / "guest.toml").write_text('[[dir]]\nhost = "app"\nguest = "/"\n')
    helper = (
        "#!/bin/sh\n"
        f"export PYTHONPATH={shlex.quote(os.pathsep.join(os.path.abspath(p) for p in sys.path))}\n"
        f'exec {shlex.quote(sys.executable)} -m overlayd.cli.mount_helper "$@"\n'
    )
    (place / "sbin").mkdir()
    for name in HELPERS:
        (place / "sbin" / name).write_text(helper)
        (place / "sbin" / name).chmod(0o755)


def run(*words: str | Path) -> tuple[int, str]:
    """The exit status of a command, and what it says on either stream."""
    done = subprocess.run(
        [str(word) for word in words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout


def own_sbin(place: Path) -> None:
    """Put the helpers into /sbin, for this mount namespace."""
    lower = f"lowerdir={place}/sbin:{Path('/sbin').resolve()}"
    assert run("mount", "-t", "overlay", "overlay", "-o", lower, "/sbin") == (0, "")


def fully_unmounted(*targets: Path) -> None:
    """Unmount by umount(8), and see every daemon off."""
    for target in targets:
        assert run("umount", target) == (0, "")
        assert not is_mounted(target)
    records = Path(os.environ["OVERLAYD_RUNTIME_DIR"])
    assert wait_until(lambda: not list(records.glob("*.json")))
    assert wait_until(lambda: not daemons_of(records)), "a daemon outlives its mount"


def test_fstab(tmp_path: Path) -> None:
    plant(tmp_path)
    fstab = tmp_path / "fstab"
    many = f'dir={tmp_path}/app::/,dir={tmp_path}/lib::/lib::ro,dir="{tmp_path}/a,b\\040c::/x"'
    fstab.write_text(
        f"{tmp_path}/guest.toml {tmp_path}/one overlayd"
        " cache=none,noatime,nofail,_netdev,x-systemd.automount,X-own,user,auto 0 0\n"
        f"guest {tmp_path}/two fuse.overlayd {many},allow_other,errors=wasi 0 0\n"
        f"never {tmp_path}/two overlayd dir=/no/such::/,noauto 0 0\n"
    )

    def scenario() -> None:
        own_sbin(tmp_path)
        one, two = tmp_path / "one", tmp_path / "two"
        assert run("mount", "-T", fstab, "-f", "-a") == (0, "")
        assert not is_mounted(one), "-f mounts nothing"
        assert run("mount", "-T", fstab, "-a") == (0, "")
        assert type_and_name(one) == ("fuse.overlayd", f"{tmp_path}/guest.toml")
        assert type_and_name(two) == ("fuse.overlayd", "guest")
        assert (one / "file").read_text() == "app"
        assert (two / "x/file").read_text() == "a,b c"
        assert "not permitted" in run("touch", two / "lib/file")[1], "errors=wasi"
        assert run("mount", "-T", fstab, "-a") == (0, ""), "what is mounted stays as it is"
        status, words = run("mount", "-o", "remount,ro", one)
        assert (status, "overlayd reload" in words) == (32, True)
        fully_unmounted(one, two)

    in_private_mounts(scenario)


def test_mount_by_hand(tmp_path: Path) -> None:
    plant(tmp_path)
    target = tmp_path / "one"

    def attempt(*words: str | Path) -> tuple[int, str]:
        return run("mount", "-t", "overlayd", *words)

    def scenario() -> None:
        own_sbin(tmp_path)
        app = f"dir={tmp_path}/app::/"
        status, words = attempt("none", target, "-o", f"{app},colour=red")
        assert status == 1 and "-o colour=red: unknown mount option" in words and "dir=" in words
        assert words.startswith("mount.overlayd: error: ") and words.count("\n") == 1
        assert attempt("none", target, "-o", "dir=/no/such::/")[0] == 1
        assert attempt(tmp_path / "no.toml", target)[0] == 1
        assert attempt("none", target)[0] == 1, "nothing says what to mount"
        assert attempt("none", tmp_path / "nowhere", "-o", app)[0] == 32
        assert not is_mounted(target)
        status, words = attempt("-sv", "none", target, "-o", f"{app},colour=red,ro")
        assert (status, "ignored: colour=red" in words) == (0, True)
        assert f"overlayd mount --dir {tmp_path}/app::/" in words
        assert "Read-only" in run("touch", target / "new")[1]
        assert attempt("none", target, "-o", app)[0] == 32, "it is taken"
        assert attempt("none", target, "-o", f"{app},replace") == (0, "")
        (target / "new").touch()
        fully_unmounted(target)

    in_private_mounts(scenario)


@pytest.mark.parametrize("kind", ["overlayd", "fuse.overlayd"])
def test_the_helper_checks_without_mounting(tmp_path: Path, kind: str) -> None:
    plant(tmp_path)
    helper = tmp_path / "sbin" / f"mount.{kind}"
    target = tmp_path / "one"
    wrong = run(helper, "none", target, "-f", "-t", kind, "-o", f"dir={tmp_path}/missing::/")
    assert wrong[0] == 1 and f"{tmp_path}/missing" in wrong[1]
    assert run(helper, tmp_path / "guest.toml", target, "-fn", "-t", kind) == (0, "")
    assert run(helper, tmp_path / "guest.toml")[0] == 1, "no target"
    assert "mount.overlayd, version" in run(helper, "--version")[1]
    assert not is_mounted(target)


def words_of(*texts: str, source: str = "none", sloppy: bool = False) -> list[str]:
    """The arguments of `overlayd mount`, without the target that ends them."""
    arguments, _ = translate(source, "/t", texts, sloppy=sloppy)
    assert arguments[-2:] == ["--", "/t"]
    return arguments[:-2]


def test_options_become_arguments() -> None:
    assert words_of("rw,cache=5,alias=refuse,log-level=debug,log_file=/l", "symlinks=verbatim") == [
        *("--cache", "5", "--alias", "refuse", "--log-level", "debug", "--log-file", "/l"),
        *("--symlinks", "verbatim", "-o", "rw,fsname=none"),
    ]
    assert words_of("config=/c,no_allow_other,replace,fsname=mine") == [
        *("--config", "/c", "--no-allow-other", "--replace", "-o", "fsname=mine"),
    ]


def test_commas_blanks_and_equals_signs_in_paths() -> None:
    quoted = 'dir="/a,b::/x::ro",dir=/p=q::/y,dir=/with blank::/z'
    assert words_of(quoted)[1:6:2] == ["/a,b::/x::ro", "/p=q::/y", "/with blank::/z"]


def test_a_source_with_a_slash_is_a_configuration_file() -> None:
    arguments = ["--config", "./g.toml", "-o", "rw,fsname=./g.toml"]
    assert words_of("rw", source="./g.toml") == arguments
    assert "--config" not in words_of("rw", source="guest")


def test_a_quote_that_is_not_closed() -> None:
    with pytest.raises(UsageError, match="a double quote is not closed"):
        words_of('dir="/srv/a,b::/')


@pytest.mark.parametrize("text", ["dir", "dir=", 'dir=""', "cache"])
def test_a_value_that_is_missing(text: str) -> None:
    with pytest.raises(UsageError, match="needs a value, as in"):
        words_of(text)


def test_remounting_is_refused_whatever_else_is_said() -> None:
    with pytest.raises(OverlaydError, match="overlayd reload /t"):
        words_of("user_id=0,remount,ro")

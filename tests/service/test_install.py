"""What the wheel ships, and `make install` into a staging directory, used from there for real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from aliases.private_mounts import in_private_mounts
from support.live import make_dirs, make_target
from support.mounting import is_mounted
from support.processes import daemons_of, wait_until

TOP = Path(__file__).parents[2]
PREFIX = "/opt/overlayd-test"
SHARE = f"{PREFIX}/share"
INSTALLED = [
    f"{PREFIX}/bin/overlayd",
    "/sbin/mount.overlayd",
    "/sbin/mount.fuse.overlayd",
    f"{SHARE}/man/man1/overlayd.1",
    f"{SHARE}/man/man5/overlayd.toml.5",
    f"{SHARE}/man/man8/mount.overlayd.8",
    f"{SHARE}/bash-completion/completions/overlayd",
    f"{SHARE}/zsh/site-functions/_overlayd",
    "/etc/fish/completions/overlayd.fish",
    f"{SHARE}/overlayd/config.schema.json",
    f"{PREFIX}/lib/systemd/system/overlayd-guest@.service",
    f"{PREFIX}/lib/systemd/system/overlayd@.service",
    "/etc/overlayd/example.toml",
]
SHIPPED = [
    "share/man/man1/overlayd.1",
    "share/man/man5/overlayd.toml.5",
    "share/man/man8/mount.overlayd.8",
    "share/bash-completion/completions/overlayd.bash",
    "share/zsh/site-functions/_overlayd",
    "share/fish/vendor_completions.d/overlayd.fish",
    "share/overlayd/config.schema.json",
    "share/overlayd/example.toml",
    "share/overlayd/systemd/overlayd@.service",
    "share/overlayd/systemd/overlayd-guest@.service",
]


EXTENSIONS = {"overlayd/kernel/_wire.abi3.so", "overlayd/host/_calls.abi3.so"}
UNPUBLISHED = shutil.ignore_patterns("*.egg-info", "*.so")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is published: building leaves files in the tree it builds."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("src", "docs", "completions", "systemd", "tools"):
        shutil.copytree(TOP / name, copy / name, ignore=UNPUBLISHED)
    for name in ("Makefile", "pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(TOP / name, copy)
    return copy


def run(*words: str | Path, place: Path | None = None) -> str:
    """The output of a command that must succeed."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=place,
        env=clean,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_the_wheel_ships_what_make_install_installs(source: Path, tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, source)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        data = next(name.partition("/")[0] for name in names if ".data/" in name)
        for name in SHIPPED:
            assert f"{data}/data/{name}" in names
        assert "overlayd/config.schema.json" in names and "overlayd/py.typed" in names
        assert {name for name in names if name.endswith(".so")} == EXTENSIONS
        assert not [name for name in names if name.endswith(".c")]
        points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "mount.overlayd = overlayd.cli.mount_helper:main" in archive.read(points).decode()


def files_in(place: Path) -> set[str]:
    """Every path in PLACE but directories, as seen from there; the program's own left out."""
    found = {f"/{path.relative_to(place)}" for path in place.rglob("*") if not is_directory(path)}
    return {name for name in found if not name.startswith(f"{PREFIX}/lib/overlayd/")}


def is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def test_make_install_and_uninstall(source: Path, tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    words = (f"PREFIX={PREFIX}", f"DESTDIR={stage}", f"PYTHON={sys.executable}")
    run("make", "install", *words, place=source)
    assert files_in(stage) == set(INSTALLED)
    unit = (stage / INSTALLED[-2].lstrip("/")).read_text()
    assert f"ExecStart={PREFIX}/bin/overlayd mount" in unit and "/usr/local/bin/over" not in unit
    for text in (path for path in stage.rglob("bin/*") if path.is_file() and not path.is_symlink()):
        assert str(stage) not in text.read_text(errors="replace"), "names the staging directory"
    make_dirs(tmp_path, "app")
    target = make_target(tmp_path)
    in_private_mounts(lambda: use_installed(stage, tmp_path / "app", target), seconds=60)
    mine = stage / "etc/overlayd/mine.toml"
    mine.touch()
    run("make", "uninstall", *words, place=source)
    assert files_in(stage) == {"/etc/overlayd/mine.toml"}
    assert not (stage / PREFIX.lstrip("/") / "lib/overlayd").exists()


def use_installed(stage: Path, app: Path, target: Path) -> None:
    """With the staging directory laid over this machine's own, for this mount namespace only."""
    for name in ("opt", "sbin", "etc"):
        own = Path("/", name).resolve()
        layers = f"lowerdir={stage / name}:{own}"
        run("mount", "-t", "overlay", "overlay", "-o", layers, own)
    overlayd = f"{PREFIX}/bin/overlayd"
    assert run(overlayd, "--version").startswith("overlayd, version")
    assert f"rw  {app}" in run(overlayd, "check", "--dir", f"{app}::/")
    run("mount", "-t", "overlayd", "none", target, "-o", f"dir={app}::/")
    assert (target / "file").read_text() == "app"
    assert '"wire": "direct answers, parallel lookups"' in run(overlayd, "status", "--json", target)
    run("umount", target)
    assert not is_mounted(target)
    records = Path(os.environ["OVERLAYD_RUNTIME_DIR"])
    assert wait_until(lambda: not daemons_of(records))
    example = "/etc/overlayd/example.toml"
    assert f"#:schema file://{SHARE}/overlayd/config.schema.json" in Path(example).read_text()

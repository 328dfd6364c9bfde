"""`overlayd status`, its JSON and its metrics, and `explain --target`: what a live mount does."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.live import daemon_of, kill, make_dirs, make_target, mount
from support.moody_source import moody_source
from support.mounting import mounted
from support.processes import attempt, command, complaint, in_child, outcome, stopped, wait_until

STUCK = {"*": 3600.0}


def told(*arguments: str, status: int = 0) -> Any:
    """What `status --json` prints."""
    done = attempt("status", "--json", *arguments)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout)


def about(target: Path) -> dict[str, Any]:
    """What the daemon behind TARGET says."""
    answer: dict[str, Any] = told(str(target))["status"]
    return answer


def preopen(status: dict[str, Any], guest: str) -> dict[str, Any]:
    (found,) = [entry for entry in status["preopens"] if entry["guest"] == guest]
    entry: dict[str, Any] = found
    return entry


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    return make_dirs(tmp_path, "app", "lib")


@pytest.fixture
def target(sources: list[Path], tmp_path: Path) -> Iterator[Path]:
    """A mount of a writable source at `/` and a read-only one at `/lib`."""
    app, lib = sources
    through_us = ("--passthrough", "off")  # the bytes that are counted
    with mounted(tmp_path, f"{app}::/", f"{lib}::/lib::ro", options=through_us) as target:
        yield target


@contextmanager
def dead_mount(place: Path, source: Path) -> Iterator[Path]:
    target = make_target(place, "dead")
    kill(mount(target, source))
    try:
        yield target
    finally:
        assert attempt("umount", str(target)).returncode == 0


# -- what is counted ------------------------------------------------------------------------------


def test_what_a_mount_is(target: Path, sources: list[Path]) -> None:
    status = about(target)
    assert status["target"] == str(target)
    assert status["pid"] == daemon_of(target)
    assert status["device"] == os.stat(target).st_dev
    assert status["settings"] == {
        "cache": "coherent",
        "alias": "ro-wins",
        "symlinks": "rebase",
        "errors": "posix",
        "allow_other": False,
        "passthrough": "off",
        "log_level": "info",
    }
    assert 0 < status["uptime_seconds"] < 60
    assert 10e6 < status["memory_bytes"] < 1e9
    assert [(p["guest"], p["host"], p["mode"], p["cache"]) for p in status["preopens"]] == [
        ("/", str(sources[0]), "rw", "coherent"),
        ("/lib", str(sources[1]), "ro", "coherent"),
    ]


def test_settings_are_told_as_given(tmp_path: Path, sources: list[Path]) -> None:
    options = ("--cache", "3", "--symlinks", "verbatim", "--errors", "wasi", "--alias", "refuse")
    with mounted(tmp_path, f"{sources[0]}::/", options=[*options, "--allow-other"]) as target:
        status = about(target)
    settings = status["settings"]
    assert (settings["cache"], settings["symlinks"]) == ("3", "verbatim")
    assert (settings["errors"], settings["alias"]) == ("wasi", "refuse")
    assert settings["allow_other"] is True


def test_bytes_and_operations_go_to_the_preopen_that_provides_them(target: Path) -> None:
    before = about(target)

    def use() -> None:
        (target / "new").write_bytes(b"x" * 5000)
        os.unlink(target / "new")
        assert (target / "lib/file").read_bytes() == b"lib"

    in_child(use)
    after = about(target)
    top, lib = preopen(after, "/"), preopen(after, "/lib")
    assert (top["bytes_read"], top["bytes_written"]) == (0, 5000)
    assert (lib["bytes_read"], lib["bytes_written"]) == (3, 0)
    for guest in ("/", "/lib"):
        assert preopen(after, guest)["operations"] > preopen(before, guest)["operations"]
    counted = after["operations"]
    assert (counted["create"], counted["write"], counted["unlink"], counted["read"]) == (1, 1, 1, 1)
    whole = sum(counted.values()) - counted.get("statfs", 0) - counted.get("forget", 0)
    assert sum(entry["operations"] for entry in after["preopens"]) == whole


def test_a_file_that_was_removed_still_counts_for_its_preopen(target: Path) -> None:
    def use() -> None:
        fd = os.open(target / "gone", os.O_RDWR | os.O_CREAT)
        os.unlink(target / "gone")
        os.write(fd, b"12345")
        assert os.pread(fd, 3, 0) == b"123"
        os.close(fd)

    in_child(use)
    assert wait_until(lambda: about(target)["operations"].get("release", 0) >= 1)
    top = preopen(about(target), "/")
    assert (top["bytes_written"], top["bytes_read"] > 0, top["handles"]) == (5, True, 0)


def test_open_handles(target: Path) -> None:
    reading = (target / "lib/file").open("rb")
    listing = os.open(target, os.O_RDONLY)
    try:
        status = about(target)
        handles = [preopen(status, guest)["handles"] for guest in ("/", "/lib")]
        assert (status["handles"], handles) == (2, [1, 1])
    finally:
        reading.close()
        os.close(listing)
    assert wait_until(lambda: about(target)["handles"] == 0)
    status = about(target)
    assert [entry["handles"] for entry in status["preopens"]] == [0, 0]


def test_errors_and_denials(target: Path) -> None:
    for _ in range(3):
        assert in_child(outcome, os.mkdir, target / "lib/new") == "EROFS"
    assert in_child(outcome, os.rmdir, target / "lib") == "EBUSY"
    assert in_child(outcome, os.getxattr, target / "file", "user.none") == "ENODATA"
    status = about(target)
    assert status["errors"]["EROFS"] == 3
    assert status["errors"]["EBUSY"] == 1
    assert status["errors"]["ENODATA"] >= 1
    assert status["denials"] == {"read-only preopen": 3}
    assert preopen(status, "/lib")["denials"] == 3
    assert preopen(status, "/")["denials"] == 0


def test_how_long_is_kept_what_a_source_that_may_block_says(
    tmp_path: Path, sources: list[Path]
) -> None:
    with moody_source(tmp_path / "moody") as moody:
        dirs = (f"{sources[0]}::/", f"{moody.path}::/slow")
        with mounted(tmp_path, *dirs) as target:
            status = about(target)
            assert preopen(status, "/")["cache"] == "coherent"
            assert preopen(status, "/slow")["cache"] == "1 s"
        with mounted(tmp_path, *dirs, options=["--cache", "5"]) as target:
            status = about(target)
            assert preopen(status, "/")["cache"] == "5"
            assert preopen(status, "/slow")["cache"] == "asked each time"


def test_a_stuck_source_keeps_no_status_waiting(tmp_path: Path, sources: list[Path]) -> None:
    with moody_source(tmp_path / "moody") as moody:
        (moody.path / "file").write_bytes(b"slow")
        dirs = (f"{sources[0]}::/", f"{moody.path}::/slow")
        with mounted(tmp_path, *dirs) as target:
            moody.order(STUCK)
            done = attempt("status", "--timeout", "5", str(target))
            assert (done.returncode, done.stderr) == (0, "")
            moody.order()


def test_status_follows_a_reload(tmp_path: Path, sources: list[Path]) -> None:
    config = tmp_path / "overlayd.toml"
    entry = '[[dir]]\nhost = "{}"\nguest = "{}"\nro = {}\n'.format
    app, lib = sources
    config.write_text(entry(app, "/", "false") + entry(lib, "/lib", "true"))
    with mounted(tmp_path, options=["--config", str(config), "--passthrough", "off"]) as target:
        in_child((target / "lib/file").read_bytes)
        config.write_text('cache = "none"\n' + entry(app, "/", "false") + entry(app, "/x", "true"))
        assert attempt("reload", str(target)).returncode == 0
        status = about(target)
        assert [(p["guest"], p["mode"]) for p in status["preopens"]] == [("/", "rw"), ("/x", "ro")]
        assert {p["cache"] for p in status["preopens"]} == {
            "asked each time"
        }  # one directory twice
        assert status["settings"]["cache"] == "none"
        assert status["operations"]["read"] == 1
        assert told()["mounts"][0]["preopens"] == [f"{app}::/::rw", f"{app}::/x::ro"]
        config.write_text(entry(app, "/", "false") + entry(lib, "/lib", "false"))
        assert attempt("reload", str(target)).returncode == 0
        lib_again = preopen(about(target), "/lib")
        assert (lib_again["bytes_read"], lib_again["mode"]) == (3, "rw")


def test_counters_keep_no_source_that_was_taken_out(tmp_path: Path, sources: list[Path]) -> None:
    """Its file system can be unmounted; what was counted is no reason to hold it."""
    config, disk = tmp_path / "overlayd.toml", tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=True)
    try:
        (disk / "file").write_text("disk")
        first = f'[[dir]]\nhost = "{sources[0]}"\nguest = "/"\n'
        config.write_text(f'{first}[[dir]]\nhost = "{disk}"\nguest = "/disk"\n')
        with mounted(tmp_path, options=["--config", str(config)]) as target:
            assert in_child((target / "disk/file").read_text) == "disk"
            config.write_text(first)
            assert attempt("reload", str(target)).returncode == 0
            wait_until(lambda: about(target)["handles"] == 0)
            umount = ["umount", "-q", str(disk)]
            assert wait_until(lambda: subprocess.run(umount, check=False).returncode == 0)
    finally:
        subprocess.run(["umount", "-lq", str(disk)], check=False)


# -- for people -----------------------------------------------------------------------------------


def columns(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_no_mounts_at_all() -> None:
    done = attempt("status")
    assert (done.returncode, done.stdout, done.stderr) == (0, "no mounts of this user\n", "")
    assert told() == {"mounts": []}


def test_the_table_of_mounts(tmp_path: Path, sources: list[Path], target: Path) -> None:
    with mounted(tmp_path, f"{sources[1]}::/") as other, dead_mount(tmp_path, sources[0]) as dead:
        done = attempt("status")
        assert done.returncode == 0
        header, *rows = columns(done.stdout)
        assert header[:3] == ["TARGET", "STATE", "PID"]
        assert {(row[0], row[1]) for row in rows} == {
            (str(target), "live"),
            (str(other), "live"),
            (str(dead), "dead"),
        }
        assert done.stderr.splitlines() == [
            f"{dead} is dead: its daemon is gone; mount again, or overlayd umount {dead}"
        ]
        states = {entry["target"]: entry["state"] for entry in told()["mounts"]}
        assert states == {str(target): "live", str(other): "live", str(dead): "dead"}


def test_one_mount(target: Path, sources: list[Path]) -> None:
    in_child((target / "lib/file").read_bytes)
    done = attempt("status", str(target))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == str(target)
    assert f"pid {daemon_of(target)}," in done.stdout
    rows = [row for row in columns(done.stdout) if row[:1] in (["/"], ["/lib"])]
    assert [row[:3] for row in rows] == [
        ["/", str(sources[0]), "rw"],
        ["/lib", str(sources[1]), "ro"],
    ]


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What the command writes to a terminal."""
    mine, its = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    process = subprocess.Popen(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=its,
        env={**inherited, "TERM": "xterm", "COLUMNS": "100", **environment},
    )
    os.close(its)
    pieces = []
    try:
        while piece := os.read(mine, 65536):
            pieces.append(piece)
    except OSError:  # EIO: the other end is closed
        pass
    os.close(mine)
    assert process.wait(30) == 0
    return b"".join(pieces).decode()


def test_colours_on_a_terminal_alone_and_none_where_they_are_not_wanted(target: Path) -> None:
    drawn = on_a_terminal("status", str(target))
    assert "\x1b[36mro" in drawn and "─" in drawn
    plain = on_a_terminal("status", str(target), NO_COLOR="1")
    assert "\x1b[3" not in plain and "ro" in plain
    assert "\x1b" not in attempt("status", str(target)).stdout


@pytest.mark.parametrize("columns", ["20", "60", "80", "200"])
def test_a_narrow_terminal_loses_no_column(target: Path, columns: str) -> None:
    drawn = on_a_terminal("status", NO_COLOR="1", COLUMNS=columns)
    assert {"TARGET", "STATE", "UPTIME", "PREOPENS", "DENIED"} <= set(drawn.split())
    assert "live" in drawn.split() and str(daemon_of(target)) in drawn.split()


def test_a_target_that_is_dead_or_none_at_all(tmp_path: Path, sources: list[Path]) -> None:
    with dead_mount(tmp_path, sources[0]) as dead:
        as_source = complaint(attempt("check", "--dir", f"{dead}::/"), 2)
        assert f"--dir {dead}::/: {dead}: " in as_source and "a dead mount lies there" in as_source
        assert "its daemon is gone; mount again" in complaint(attempt("status", str(dead)), 1)
        answer = told(str(dead), status=1)
        assert (answer["state"], answer["status"]) == ("dead", None)
    empty = make_target(tmp_path)
    assert f"{empty} is not mounted" in complaint(attempt("status", str(empty)), 1)
    assert "none of overlayd's" in complaint(attempt("status", "/proc"), 1)


def test_a_daemon_that_does_not_answer(tmp_path: Path, target: Path, sources: list[Path]) -> None:
    with mounted(tmp_path, f"{sources[1]}::/") as other, stopped(daemon_of(other)):
        line = complaint(attempt("status", "--timeout", "0.3", str(other)), 1)
        assert "did not answer within 0.3 s" in line
        states = {e["target"]: e["state"] for e in told("--timeout", "0.5")["mounts"]}
        assert states == {str(target): "live", str(other): "no answer"}


def test_what_is_wrong_with_the_command_line(tmp_path: Path) -> None:
    assert "--timeout 0" in complaint(attempt("status", "--timeout", "0"), 2)
    assert "--metrics" in complaint(attempt("status", "--json", "--metrics"), 2)


def test_a_record_that_is_none(runtime_directory: Path, target: Path) -> None:
    odd = [runtime_directory / name for name in ("1.json", "x.json", "2.json")]
    for path, text in zip(odd, ("{", '{"target": "/x"}', "[]"), strict=True):
        path.write_text(text)
    assert [entry["target"] for entry in told()["mounts"]] == [str(target)]
    for path in odd:
        path.unlink()


# -- metrics --------------------------------------------------------------------------------------


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation and family.type in ("counter", "gauge"), family
        for sample in family.samples:
            assert sample.name.startswith("overlayd_")
            assert sample.name.endswith("_total") == (family.type == "counter"), sample
            found[sample.name, frozenset(sample.labels.items())] = sample.value
    return found


def labelled(**labels: str) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())


def test_metrics(tmp_path: Path, sources: list[Path], target: Path) -> None:
    in_child((target / "lib/file").read_bytes)
    in_child(outcome, os.mkdir, target / "lib/new")
    with dead_mount(tmp_path, sources[0]) as dead:
        done = attempt("status", "--metrics")
    assert (done.returncode, done.stderr) == (0, "")
    found = samples(done.stdout)
    mine = str(target)
    assert found["overlayd_up", labelled(target=mine)] == 1
    assert found["overlayd_up", labelled(target=str(dead))] == 0
    assert found["overlayd_requests_total", labelled(target=mine, operation="mkdir")] == 1
    assert found["overlayd_request_errors_total", labelled(target=mine, errno="EROFS")] == 1
    lib = labelled(target=mine, guest="/lib", mode="ro")
    assert found["overlayd_preopen_read_bytes_total", lib] == 3
    assert found["overlayd_preopen_denials_total", lib] == 1
    assert found["overlayd_preopen_open_handles", lib] == 0
    one = attempt("status", "--metrics", mine)
    assert (one.returncode, str(dead) in one.stdout) == (0, False)


def test_the_metrics_are_those_that_are_written_down(target: Path) -> None:
    in_child(outcome, os.mkdir, target / "lib/new")
    pages = Path(__file__).parents[2] / "docs/operations.md"
    documented = set(re.findall(r"`(overlayd_\w+)`", pages.read_text()))
    names = {name for name, _ in samples(attempt("status", "--metrics").stdout)}
    assert names == documented - {"overlayd_passthrough_refused_total"}  # nothing was


def test_odd_names_in_labels(tmp_path: Path) -> None:
    (source,) = make_dirs(tmp_path, "source")
    name = 'a"b\\c d'
    with mounted(tmp_path, f"{source}::/{name}") as target:
        found = samples(attempt("status", "--metrics", str(target)).stdout)
    guests = {dict(labels)["guest"] for _, labels in found if "guest" in dict(labels)}
    assert guests == {f"/{name}"}


# -- explain --target -----------------------------------------------------------------------------


def test_explaining_on_a_live_mount_is_as_on_a_table(target: Path, sources: list[Path]) -> None:
    (sources[0] / "link").symlink_to("/lib")
    paths = ("/file", "/lib/file", "/link/file", "/")
    table = ("--dir", f"{sources[0]}::/", "--dir", f"{sources[1]}::/lib::ro")
    for form in ([], ["--json"]):
        live = attempt("explain", "--target", str(target), *form, *paths)
        assert (live.returncode, live.stderr) == (0, "")
        assert live.stdout == attempt("explain", *table, *form, *paths).stdout


def test_explaining_leaves_nothing_behind(target: Path, sources: list[Path]) -> None:
    for number in range(20):
        (sources[0] / f"deep/{number}/x").mkdir(parents=True)
    before = about(target)["inodes"]
    paths = [f"/deep/{number}/x" for number in range(20)]
    assert attempt("explain", "--target", str(target), *paths).returncode == 0
    assert wait_until(lambda: about(target)["inodes"] == before)
    in_child(os.listdir, target / "deep/3/x")


def test_what_cannot_be_explained(target: Path, tmp_path: Path) -> None:
    there = ("explain", "--target", str(target))
    assert "/no/such: no such file" in complaint(attempt(*there, "/no/such"), 1)
    assert "'..'" in complaint(attempt(*there, "/lib/../x"), 2)
    line = complaint(attempt(*there, "--dir", "/x::/", "/x"), 2)
    assert "--target" in line
    empty = make_target(tmp_path)
    assert "not mounted" in complaint(attempt("explain", "--target", str(empty), "/x"), 1)


def test_explaining_a_stuck_source_keeps_nobody_waiting(
    tmp_path: Path, sources: list[Path]
) -> None:
    with moody_source(tmp_path / "moody") as moody:
        (moody.path / "file").write_bytes(b"slow")
        dirs = (f"{sources[0]}::/", f"{moody.path}::/slow")
        with mounted(tmp_path, *dirs) as target:
            moody.order(STUCK)
            waiting = [
                subprocess.Popen(
                    command("explain", "--target", str(target), "/slow/file"),
                    stderr=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                )
                for _ in range(6)
            ]
            try:
                assert in_child((target / "file").read_text) == "app"
                assert about(target)["handles"] == 0
                assert all(process.poll() is None for process in waiting)
            finally:
                for process in waiting:
                    process.kill()
                    process.wait()
                moody.order()

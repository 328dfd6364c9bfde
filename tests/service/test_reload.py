"""`overlayd reload` and SIGHUP on live mounts: what changes at once, and what must not notice."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.live import daemon_of, kill, make_target
from support.moody_source import moody_source
from support.mounting import overlayd, tracebacks, unmount
from support.planting import plant
from support.processes import attempt, command, in_child, outcome, wait_until

THROUGH_US = ("--passthrough", "off")
"""What is written past the daemon nobody can take back: see passthrough/test_read_only.py."""


class Live:
    """A mount by a configuration file, and what it says now."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.file = place / "guest.toml"
        self.top = make_target(place)
        self.log = place / "log"

    def write(self, *dirs: str, **settings: str) -> None:
        """Configure the preopens DIRS, `HOST::GUEST[::ro]` with HOST beside the file."""
        lines = [f'{key} = "{value}"' for key, value in settings.items()]
        for entry in dirs:
            host, guest, *mode = entry.split("::")
            lines += ["[[dir]]", f'host = "{host}"', f'guest = "{guest}"']
            lines += ["ro = true"] if mode == ["ro"] else []
        self.file.write_text("\n".join(lines) + "\n")

    def reload(self, *dirs: str, **settings: str) -> list[str]:
        """Configure DIRS and reload; the lines that `overlayd reload` prints."""
        self.write(*dirs, **settings)
        return overlayd("reload", str(self.top)).splitlines()


@contextmanager
def live(place: Path, *dirs: str, options: tuple[str, ...] = ()) -> Iterator[Live]:
    mount = Live(place)
    mount.write(*dirs)
    # Relative, as people write it: the daemon's own working directory is another one.
    arguments = ("--config", mount.file.name, "--log-file", str(mount.log), *options)
    done = subprocess.run(
        command("mount", *arguments, mount.top.name),
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, "")
    try:
        yield mount
    finally:
        problems = [*unmount(mount.top), *tracebacks(mount.log)]
        if problems:
            pytest.fail("\n".join(problems))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    plant(tmp_path / "app", "file=app", "lib/x=masked", "data/z=z")
    plant(tmp_path / "lib", "x=lib", "deep/y=lib")
    plant(tmp_path / "other", "x=other")
    return tmp_path


@pytest.mark.usefixtures("data_way")
def test_preopens_come_change_and_go_at_once(place: Path) -> None:
    with live(place, "app::/") as mount:
        top = mount.top
        assert (top / "lib/x").read_text() == "masked"
        assert outcome(os.stat, top / "new/other") == "ENOENT", "and the kernel may remember that"
        assert mount.reload("app::/", "lib::/lib", "other::/new/other::ro") == [
            f"added {place}/lib::/lib::rw",
            f"added {place}/other::/new/other::ro",
        ]
        assert (top / "lib/x").read_text() == "lib"
        assert (top / "new/other/x").read_text() == "other"
        assert sorted(os.listdir(top)) == ["data", "file", "lib", "new"]
        assert mount.reload("app::/", "lib::/lib::ro") == [
            f"removed {place}/other::/new/other::ro",
            f"changed {place}/lib::/lib::rw to {place}/lib::/lib::ro",
        ]
        assert outcome((top / "lib/new").touch) == "EROFS"
        assert outcome(os.stat, top / "new") == "ENOENT"
        assert mount.reload("app::/", "lib::/lib::ro") == ["nothing changed"]
        assert mount.reload("app::/") == [f"removed {place}/lib::/lib::ro"]
        assert (top / "lib/x").read_text() == "masked"


def test_reload_with_the_cache_of_a_day(place: Path) -> None:
    """Nothing rests on what the kernel remembers timing out."""
    with live(place, "app::/", options=("--cache", "86400")) as mount:
        top = mount.top
        for path in ("lib", "lib/x", "data/z"):
            os.stat(top / path)
        assert outcome(os.stat, top / "new") == "ENOENT"
        mount.reload("app::/", "lib::/lib", "other::/new")
        assert (top / "lib/x").read_text() == "lib"
        assert (top / "new/x").read_text() == "other"
        mount.reload("app::/")
        assert (top / "lib/x").read_text() == "masked"
        assert outcome(os.stat, top / "new") == "ENOENT"


@pytest.mark.usefixtures("data_way")
def test_handles_on_what_is_removed_go_on_until_closed(place: Path) -> None:
    with live(place, "app::/", "lib::/lib") as mount:
        with open(mount.top / "lib/x", "r+b", buffering=0) as file:
            directory = os.open(mount.top / "lib", os.O_RDONLY)
            mount.reload("app::/")
            assert file.read() == b"lib"
            file.write(b" and more")
            os.fsync(file.fileno())
            file.truncate(5)
            assert os.fstat(file.fileno()).st_size == 5
            assert (place / "lib/x").read_text() == "lib a"
            assert sorted(os.listdir(directory)) == ["deep", "x"]
            for name in ("deep/y", "new", "deep"):
                stale = outcome(lambda n=name: os.open(n, os.O_RDONLY, dir_fd=directory))
                assert stale in ("ESTALE", "ENOENT"), "new lookups go by the new table"
            os.close(directory)
        assert (mount.top / "lib/x").read_text() == "masked"


def test_a_preopen_that_turned_read_only_takes_no_more_writes(place: Path) -> None:
    os.link(place / "lib/x", place / "app/alias")
    with live(place, "app::/", "lib::/lib", options=THROUGH_US) as mount:
        ours = os.open(mount.top / "lib/x", os.O_RDWR)
        alias = os.open(mount.top / "alias", os.O_RDWR)
        other = os.open(mount.top / "file", os.O_RDWR)
        mount.reload("app::/", "lib::/lib::ro")
        for fd in (ours, alias):
            assert outcome(os.write, fd, b"no") == "EROFS"
            assert outcome(os.ftruncate, fd, 0) == "EROFS"
            assert os.pread(fd, 10, 0) == b"lib"
        assert os.write(other, b"yes") == 3
        assert (place / "lib/x").read_text() == "lib"
        for fd in (ours, alias, other):
            os.close(fd)


def test_a_wrong_configuration_is_refused_whole(place: Path) -> None:
    with live(place, "app::/", "lib::/lib") as mount:
        for dirs, words in (
            (("app::/", "missing::/lib"), "missing"),
            (("app::/", "lib::/a", "other::/a"), "both are attached at /a"),
            (("app::/", "lib::/file/x"), "file"),
            ((), "no preopens"),
        ):
            mount.write(*dirs)
            done = attempt("reload", str(mount.top))
            assert (done.returncode, done.stdout) == (2, "")
            assert len(done.stderr.splitlines()) == 1 and words in done.stderr
        mount.file.write_text("[[dir")
        assert attempt("reload", str(mount.top)).returncode == 2
        os.unlink(mount.file)
        assert attempt("reload", str(mount.top)).returncode == 2
        assert (mount.top / "lib/x").read_text() == "lib", "everything is as it was"
        assert "not reloaded, nothing has changed" in mount.log.read_text()
        mount.write("target/data::/")  # inside the very mount
        done = attempt("reload", str(mount.top))
        assert done.returncode == 2 and "this very mount" in done.stderr


def test_settings_change_live_and_others_say_when(place: Path) -> None:
    with live(place, "app::/", "lib::/lib::ro") as mount:
        os.symlink("/data", place / "app/link")
        assert os.readlink(mount.top / "link") == "data"
        lines = mount.reload(
            "app::/", "lib::/lib::ro", symlinks="verbatim", errors="wasi", cache="none"
        )
        assert lines == [
            "symlinks: rebase, now verbatim",
            "cache: coherent, now none",
            "errors: posix, now wasi",
        ]
        assert os.readlink(mount.top / "link") == "/data"
        assert outcome((mount.top / "lib/new").touch) == "EPERM"
        mount.write("app::/", "lib::/lib::ro", symlinks="verbatim", errors="wasi", cache="none")
        with open(mount.file, "r+") as file:
            text = file.read()
            file.seek(0)
            file.write("allow_other = true\n" + text)
        answer = json.loads(overlayd("reload", "--json", str(mount.top)))
        assert answer["remount_needed"] == ["allow_other"]
        told = json.loads(overlayd("status", "--json", str(mount.top)))
        assert told["status"]["settings"]["allow_other"] is False
        answer = json.loads(overlayd("reload", "--json", str(mount.top)))
        assert answer["remount_needed"] == ["allow_other"], "it still is"


def test_sighup_reloads(place: Path) -> None:
    with live(place, "app::/") as mount:
        daemon = daemon_of(mount.top)
        mount.write("app::/", "lib::/lib")
        os.kill(daemon, signal.SIGHUP)
        assert wait_until(lambda: (mount.top / "lib/x").read_text() == "lib")
        mount.file.write_text("nonsense")
        os.kill(daemon, signal.SIGHUP)
        assert wait_until(lambda: "not reloaded" in mount.log.read_text())
        assert (mount.top / "lib/x").read_text() == "lib"


@pytest.mark.usefixtures("data_way")
def test_the_host_put_another_directory_in_place(place: Path) -> None:
    with live(place, "app::/", "lib::/lib") as mount:
        os.rename(place / "lib", place / "lib.old")
        plant(place / "lib", "x=replaced")
        assert (mount.top / "lib/x").read_text() == "lib", "a source is known by its inode"
        assert mount.reload("app::/", "lib::/lib") == [
            "/lib: its host path holds another one now, which shows"
        ]
        assert (mount.top / "lib/x").read_text() == "replaced"


@pytest.mark.parametrize(
    ("request_name", "status"),
    [("read", 0), ("*", 1)],
    ids=["while a guest waits for it", "whose root does not answer"],
)
def test_a_stuck_source_holds_up_no_reload_for_long(
    place: Path, request_name: str, status: int
) -> None:
    with moody_source(place / "moody") as moody:
        (moody.path / "file").write_bytes(b"slow")
        slow = f"{moody.path}::/slow"
        with live(place, "app::/", slow) as mount:
            moody.order(delays={request_name: 3600.0})
            reader = subprocess.Popen(["cat", mount.top / "slow/file"], stdout=subprocess.DEVNULL)
            try:
                mount.write("app::/", slow, "lib::/lib")
                done = attempt("reload", str(mount.top))
                assert done.returncode == status, done.stderr
                expected = "lib" if status == 0 else "masked"
                assert in_child((mount.top / "lib/x").read_text) == expected
                if status:
                    assert "does not answer" in done.stderr
            finally:
                moody.order()
                reader.kill()
                reader.wait(20)


HOLD = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
print("open", flush=True)
sys.stdin.readline()
"""


@contextmanager
def held_open_for_writing(path: Path) -> Iterator[None]:
    """By another process: where its source is stuck, a fork of ours would wait to close it."""
    code = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(code, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"open\n"
        yield


@pytest.mark.parametrize("mood", ["stuck", "failing"])
def test_a_sick_source_with_a_writer_is_taken_out(place: Path, mood: str) -> None:
    """What it says, or does not, of its open file keeps no reload from the other files."""
    with moody_source(place / "moody") as moody:
        (moody.path / "file").write_bytes(b"sick")
        sick = f"{moody.path}::/sick"
        started = live(place, "app::/", sick, options=THROUGH_US)
        with started as mount, held_open_for_writing(mount.top / "sick/file"):
            ours = os.open(mount.top / "file", os.O_RDWR)
            if mood == "stuck":
                moody.order(delays={"*": 3600.0})
            else:
                moody.order(errors={"getattr": errno.EIO})
            try:
                mount.write("app::/::ro")
                os.kill(daemon_of(mount.top), signal.SIGHUP)
                assert wait_until(lambda: outcome(os.pwrite, ours, b"app", 0) == "EROFS")
                assert mount.reload("app::/") == [
                    f"changed {place}/app::/::ro to {place}/app::/::rw"
                ]
                assert os.pwrite(ours, b"app", 0) == 3
            finally:
                moody.order()
                os.close(ours)


def test_a_lookup_that_waits_for_ever_keeps_no_reload_in_the_kernel(place: Path) -> None:
    """There nothing could end it, nor the daemon; and what asks each time need not be told."""
    with moody_source(place / "moody") as moody:
        (moody.path / "file").write_bytes(b"slow")
        slow = f"{moody.path}::/slow"
        with live(place, "app::/", slow) as mount:
            os.stat(mount.top / "slow/file")
            moody.order(delays={"*": 3600.0})
            guest = subprocess.Popen(["stat", mount.top / "slow/other"], stderr=subprocess.DEVNULL)
            try:
                assert wait_until(lambda: Path(f"/proc/{guest.pid}/wchan").read_text() != "0")
                mount.reload("app::/")
                assert "the kernel still waits" not in mount.log.read_text()
                assert outcome(os.stat, mount.top / "slow") == "ENOENT"
            finally:
                moody.order()
                guest.wait(20)


def test_a_removed_source_is_let_go_of(place: Path) -> None:
    """The host may unmount it: what read-only files were judged by does not keep it open."""
    with live(place, "app::/", "lib::/lib::ro") as mount:
        stream = os.open(mount.top / "lib", os.O_RDONLY)
        assert outcome((mount.top / "file").touch) == "ok"
        mount.reload("app::/")
        os.close(stream)

        def held() -> list[str]:
            fds = Path(f"/proc/{daemon_of(mount.top)}/fd")
            links = [os.readlink(fd) for fd in fds.iterdir() if os.path.islink(fd)]
            return [link for link in links if link.startswith(f"{place}/lib")]

        assert wait_until(lambda: held() == [], 5), held()


def test_what_a_reload_leaves_alone_is_not_forgotten(place: Path) -> None:
    """Not even where an open directory had the same name before it."""
    with live(place, "app::/", "lib::/lib") as mount:
        former = os.open(mount.top / "lib", os.O_RDONLY)
        try:
            mount.reload("app::/")
            stays = os.open(mount.top / "lib", os.O_RDONLY)
            mount.reload("app::/", "lib::/more")
            link = os.readlink(f"/proc/self/fd/{stays}")
            os.close(stays)
        finally:
            os.close(former)
        assert link == f"{mount.top}/lib", "unhashed it would be called deleted"


def test_the_same_preopen_comes_back_under_an_open_stream(place: Path) -> None:
    """What an outdated stream lists is kept apart from the same directory, shown anew."""
    with live(place, "app::/", "lib::/lib") as mount:
        stream = os.open(mount.top / "lib", os.O_RDONLY)
        try:
            mount.reload("app::/")
            os.listdir(stream)
            mount.reload("app::/", "lib::/lib")
            os.listdir(stream)
            assert os.listdir(mount.top / "lib/deep") == ["y"]
            (mount.top / "lib/deep/new").touch()
            os.listdir(stream)
            assert sorted(os.listdir(mount.top / "lib/deep")) == ["new", "y"]
        finally:
            os.close(stream)


CHURN = """
import os, sys, time
top, own, deadline = sys.argv[1], sys.argv[2], time.monotonic() + float(sys.argv[3])
os.makedirs(f"{top}/data/{own}")
stream = os.open(f"{top}/data/{own}", os.O_RDONLY)
log = open(f"{top}/data/{own}/log", "ab", buffering=0)
rounds = 0
while time.monotonic() < deadline:
    path = f"{top}/data/{own}/file"
    with open(path, "wb") as file:
        file.write(b"x" * 10_000)
    os.rename(path, path + "-2")
    with open(path + "-2", "rb") as file:
        assert file.read() == b"x" * 10_000
    assert "log" in os.listdir(stream)
    os.stat("log", dir_fd=stream)
    os.unlink(path + "-2")
    log.write(b"%d\\n" % rounds)
    assert open(f"{top}/file").read() == "app"
    rounds += 1
print(rounds)
"""


@pytest.mark.usefixtures("data_way")
def test_what_stays_notices_nothing_while_preopens_come_and_go(place: Path) -> None:
    """Guests read, write and list below `/` and `/data` while everything around them changes."""
    stays = ("app::/", "shared::/data")
    (place / "shared").mkdir()
    with live(place, *stays) as mount:
        guests = [
            subprocess.Popen(
                [sys.executable, "-c", CHURN, str(mount.top), f"guest{number}", "4"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(3)
        ]
        reloads = 0
        while any(process.poll() is None for process in guests):
            for others in (
                ("lib::/lib", "other::/data/inner/other"),
                ("lib::/lib::ro",),
                ("other::/lib", "lib::/a/b/c"),
                (),
            ):
                mount.reload(*stays, *others)
                reloads += 1
        for number, process in enumerate(guests):
            said, complaint = process.communicate(timeout=20)
            assert process.returncode == 0, complaint
            log = (place / f"shared/guest{number}/log").read_text()
            assert log == "".join(f"{n}\n" for n in range(int(said)))
        assert reloads >= 4


def test_reload_under_mutual_writers_revokes_in_time(place: Path) -> None:
    """Once `reload` has answered, not one more byte comes through an open handle."""
    code = """
import os, sys
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
print("ready", flush=True)
while True:
    try:
        os.write(fd, b"x")
    except OSError as error:
        sys.exit(error.errno)
"""
    with live(place, "app::/", "lib::/lib", options=THROUGH_US) as mount:
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(mount.top / "lib/x")], stdout=subprocess.PIPE
            )
            for _ in range(3)
        ]
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline()
        mount.reload("app::/", "lib::/lib::ro")
        size = (place / "lib/x").stat().st_size
        for writer in writers:
            writer.communicate(timeout=20)
            assert writer.returncode == errno.EROFS
        assert (place / "lib/x").stat().st_size == size


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("reload",), "missing argument"),
        (("reload", "/"), "holds no overlayd mount"),
        (("reload", "/nowhere/at/all"), "holds no overlayd mount"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], words: str) -> None:
    done = attempt(*arguments)
    assert done.returncode in (1, 2) and words in done.stderr.lower()
    assert len(done.stderr.splitlines()) == 1


def test_a_dead_daemon_is_named(place: Path) -> None:
    with live(place, "app::/") as mount:
        kill(daemon_of(mount.top))
        done = attempt("reload", str(mount.top))
        assert done.returncode == 1 and str(mount.top) in done.stderr

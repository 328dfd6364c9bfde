"""`overlayd run`: as if COMMAND had been started directly, with a mount around it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.live import make_dirs
from support.mounting import mount_points
from support.processes import (
    attempt,
    command,
    complaint,
    daemons_of,
    ends,
    in_child,
    wait_until,
)


def run(source: Path, *words: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """`overlayd run` with SOURCE at the root; checks that nothing is left of the mount."""
    done = attempt("run", "--dir", f"{source}::/", *options, "--", *words)
    temporary = Path(os.environ["TMPDIR"])
    assert [point for point in mount_points() if point.startswith(f"{temporary}/")] == []
    assert list(temporary.iterdir()) == []
    return done


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_dirs(tmp_path, "source")[0]


def python(code: str) -> list[str]:
    """A COMMAND that runs CODE."""
    return [sys.executable, "-c", code]


def test_the_target_is_in_arguments_and_environment(source: Path) -> None:
    code = "import os, sys; print(sys.argv[1:], os.environ['OVERLAYD_TARGET'])"
    done = run(source, *python(code), "{}", "--dir={}::/", "a{}b{}", "{", "}")
    target = done.stdout.split()[-1]
    assert done.stdout.strip() == (
        f"['{target}', '--dir={target}::/', 'a{target}b{target}', '{{', '}}'] {target}"
    )
    assert target.startswith(os.environ["TMPDIR"])
    assert done.stderr == ""


@pytest.mark.usefixtures("data_way")
def test_the_namespace_is_there(source: Path, tmp_path: Path) -> None:
    (nested,) = make_dirs(tmp_path, "nested")
    extra = ["--dir", f"{nested}::/lib"]
    assert run(source, "cat", "{}/file", options=extra).stdout == "source"
    assert run(source, "cat", "{}/lib/file", options=extra).stdout == "nested"
    found = run(source, "find", "{}", "-type", "f", options=extra).stdout.split()
    assert ["/".join(path.split("/")[-2:]) for path in found if "/lib/" in path] == ["lib/file"]
    assert len(found) == 2


@pytest.mark.usefixtures("data_way")
def test_changes_are_on_the_host_when_it_returns(source: Path) -> None:
    assert run(source, "sh", "-c", "echo new > {}/made").returncode == 0
    assert (source / "made").read_text() == "new\n"


@pytest.mark.parametrize("status", [0, 1, 2, 77, 255])
def test_the_exit_status_is_the_commands(source: Path, status: int) -> None:
    done = run(source, "sh", "-c", f"exit {status}")
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE])
def test_a_command_ended_by_a_signal(source: Path, number: signal.Signals) -> None:
    assert run(source, "sh", "-c", f"kill -{int(number)} $$").returncode == 128 + number


def test_a_command_that_is_not_found(source: Path) -> None:
    line = complaint(run(source, "no-such-command"), 127)
    assert "no-such-command" in line
    assert "no/such/path" in complaint(run(source, "no/such/path"), 127)


def test_a_command_that_is_not_executable(source: Path) -> None:
    assert str(source / "file") in complaint(run(source, str(source / "file")), 126)
    assert str(source) in complaint(run(source, str(source)), 126)


@pytest.mark.usefixtures("data_way")
def test_a_command_from_the_namespace_itself(source: Path) -> None:
    (source / "tool").write_text("#!/bin/sh\necho from the namespace\n")
    (source / "tool").chmod(0o755)
    assert run(source, "{}/tool").stdout == "from the namespace\n"


def test_working_directory_environment_and_streams_pass_through(
    source: Path, tmp_path: Path
) -> None:
    code = "import os, sys; print(os.getcwd(), os.environ['MARK'], sys.stdin.read())"
    words = command("run", "--dir", f"{source}::/", "--", *python(code))
    done = subprocess.run(
        words,
        cwd=tmp_path,
        env={**os.environ, "MARK": "mark"},
        input="from stdin",
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == f"{tmp_path} mark from stdin\n"


def test_descriptors_pass_through_and_ours_do_not(source: Path) -> None:
    heard, told = os.pipe()
    code = f"import os; os.write({told}, ' '.join(sorted(os.listdir('/proc/self/fd'))).encode())"
    words = command("run", "--dir", f"{source}::/", "--", *python(code))
    subprocess.run(words, pass_fds=(told,), stdin=subprocess.DEVNULL, timeout=20, check=True)
    os.close(told)
    listed = os.read(heard, 1000).decode().split()
    assert os.read(heard, 1) == b""
    os.close(heard)
    # The streams, the one that was passed, and the listing's own.
    assert len(listed) == 5 and str(told) in listed


def test_signals_of_the_command_are_as_they_were(source: Path) -> None:
    code = "import signal; print(signal.pthread_sigmask(0, ()), signal.getsignal(signal.SIGTERM))"
    assert run(source, *python(code)).stdout == "set() 0\n"


@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGWINCH],
    ids=lambda number: number.name,
)
def test_signals_are_forwarded(source: Path, tmp_path: Path, number: signal.Signals) -> None:
    """The command decides what a signal means: here it ends with a status of its own."""
    code = (  # an exception might be lost in the close
        "import os, signal, time\n"
        f"signal.signal({int(number)}, lambda *_: os._exit(42))\n"
        f"open({str(tmp_path / 'up')!r}, 'w').close()\n"
        "time.sleep(20)\n"
    )
    process = subprocess.Popen(command("run", "--dir", f"{source}::/", "--", *python(code)))
    assert wait_until((tmp_path / "up").exists)
    process.send_signal(number)
    assert process.wait(10) == 42
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []


def test_what_the_command_sends_to_its_group_comes_once(source: Path) -> None:
    """It reaches us as well, who are in the group, and is not sent back."""
    code = (
        "import os, signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})\n"
        "for _ in range(10):\n"  # a second one may come before the first is taken, and be lost
        "    os.kill(0, signal.SIGUSR1)\n"
        "    while (info := signal.sigtimedwait({signal.SIGUSR1}, 0.1)) is not None:\n"
        "        print(info.si_pid == os.getpid())\n"
    )
    words = command("run", "--dir", f"{source}::/", "--", *python(code))
    done = subprocess.run(
        words, start_new_session=True, stdout=subprocess.PIPE, text=True, timeout=20, check=True
    )
    assert done.stdout == "True\n" * 10


def test_an_unhandled_signal_gives_its_status(source: Path, tmp_path: Path) -> None:
    words = ["sh", "-c", f"touch {tmp_path}/up; exec sleep 20"]
    process = subprocess.Popen(command("run", "--dir", f"{source}::/", "--", *words))
    assert wait_until((tmp_path / "up").exists)
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM


def test_killed_outright_the_mount_goes_too(
    source: Path, tmp_path: Path, runtime_directory: Path
) -> None:
    """SIGKILL leaves `run` no time to clean up: the daemon notices, unmounts and tidies up."""
    words = ["sh", "-c", f"touch {tmp_path}/up; exec sleep 20"]
    process = subprocess.Popen(command("run", "--dir", f"{source}::/", "--", *words))
    assert wait_until((tmp_path / "up").exists)
    temporary = Path(os.environ["TMPDIR"])
    (target,) = temporary.iterdir()
    assert str(target) in mount_points()
    process.kill()
    process.wait(10)
    assert wait_until(lambda: str(target) not in mount_points())
    assert wait_until(lambda: list(temporary.iterdir()) == [])
    for orphan in daemons_of(runtime_directory):  # the command itself was never run's to kill
        os.kill(orphan, signal.SIGTERM)
        assert ends(orphan)


SIGNALLED = """
import os, sys
from overlayd.cli import main, run
number = int(sys.argv.pop(1))
run.make_plan = lambda *_, **options: os.kill(os.getpid(), number)
main.main()
"""


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 1)]
)
def test_a_signal_before_the_command_is_started(
    source: Path, number: signal.Signals, status: int
) -> None:
    """There is nobody to forward it to, and a directory to remove."""
    words = [str(int(number)), "run", "--dir", f"{source}::/", "--", "true"]
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED, *words], capture_output=True, timeout=10, check=False
    )
    assert done.returncode == status
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []


def test_a_background_process_that_stays_in_the_mount(source: Path, tmp_path: Path) -> None:
    """The command is over, but what it left behind holds the mount: it goes all the same."""
    began = time.monotonic()
    code = "cd {} && (exec sleep 20 >/dev/null 2>&1) & sleep 0.2"
    done = run(source, "sh", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 8
    for orphan in daemons_of(Path(os.environ["OVERLAYD_RUNTIME_DIR"])):
        os.kill(orphan, signal.SIGKILL)


def test_two_runs_at_once_do_not_meet(source: Path) -> None:
    code = "cat {}/file; sleep 0.5; cat {}/file"
    words = command("run", "--dir", f"{source}::/", "--", "sh", "-c", code)
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=20)[0] for process in both] == ["sourcesource"] * 2
    assert [process.returncode for process in both] == [0, 0]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("wasmtime", (), "EPERM"),
        ("wasmtime", ("--errors", "posix"), "EROFS"),
        ("other", (), "EROFS"),
        ("other", ("--errors", "wasi"), "EPERM"),
    ],
)
def test_wasi_errors_for_wasmtime(
    source: Path, tmp_path: Path, name: str, options: tuple[str, ...], expected: str
) -> None:
    """The command's name decides, unless the operator does."""
    tool = tmp_path / name
    tool.write_text(
        f"#!{sys.executable}\nimport errno, os, sys\n"
        "try:\n    os.mkdir(sys.argv[1] + '/new')\n"
        "except OSError as error:\n    print(errno.errorcode[error.errno])\n"
    )
    tool.chmod(0o755)
    done = attempt("run", "--dir", f"{source}::/::ro", *options, "--", str(tool), "{}")
    assert done.stdout.strip() == expected


def test_no_place_for_the_target(source: Path, tmp_path: Path) -> None:
    """Where no temporary directory can be made, it says so in one line."""
    code = "import resource, runpy, tempfile; tempfile.tempdir = '/nowhere'; " + (
        "import sys; sys.argv = ['overlayd', 'run', '--dir', sys.argv[1], '--', 'true']; "
        "from overlayd.cli.main import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"{source}::/"],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert "TMPDIR" in complaint(done, 1)


def test_a_wrong_table_runs_nothing(source: Path, tmp_path: Path) -> None:
    words = ["run", "--dir", f"{source}::/", "--dir", f"{source}::/", "--", "touch"]
    complaint(attempt(*words, str(tmp_path / "ran")), 2)
    complaint(attempt("run", "--dir", "/nowhere::/", "--", "touch", str(tmp_path / "ran")), 2)
    complaint(attempt("run", "--dir", f"{source}::/"), 2)
    assert not (tmp_path / "ran").exists()
    assert in_child(lambda: os.listdir(os.environ["TMPDIR"])) == []

"""The benchmark program runs, says what it found, and leaves nothing: a rotten one is a defect.

How long anything takes is asserted nowhere.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.isolation import mounts_below
from support.processes import wait_until
from support.toolchain import REPOSITORY

pytestmark = pytest.mark.alone

BEGIN, END = (f"<!-- made by make bench: {word} -->" for word in ("begin", "end"))
PAGE = f"before\n{BEGIN}\nAN OLD TABLE\n{END}\nafter\n"


def program(place: Path, *arguments: str) -> list[str]:
    words = [sys.executable, "-m", "benchmarks.run", "--size", "tiny", "--in", str(place)]
    return [*words, "--out", str(place / "out"), *arguments]


def run(words: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | environment,
    )


def test_table_file_and_page_come_out(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    chosen = ["--no-disk", "--only", "stat,create", "--subjects", "native,overlayd"]
    done = run(program(tmp_path, *chosen, "--docs", str(page)))
    assert done.returncode == 0, done.stderr

    assert "stat, cold" in done.stdout and "goals" in done.stdout
    told = json.loads((tmp_path / "out/latest.json").read_text())
    assert set(told["values"]) == {"stat-cold", "stat-warm", "create", "rename", "unlink"}
    for row in told["values"].values():
        assert set(row) == {"native", "overlayd"}
        assert all(value > 0 for rounds in row.values() for value in rounds.values())
    assert {"cpu", "cores", "kernel", "python", "libfuse", "date"} <= set(told["machine"])
    assert not told["failures"]

    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "OLD" not in text
    assert "| stat, cold | µs |" in text
    assert not list(tmp_path.glob("overlayd-bench-*"))


def shown_again(
    place: Path, values: dict[str, dict[str, dict[int, float]]], part: str = "names"
) -> list[list[str]]:
    """Words of the lines of goals that an earlier run comes to: here one with known figures."""
    told = {
        "format": 1,
        "machine": {
            **dict.fromkeys(("date", "commit", "cpu", "memory_gib", "system", "kernel"), "?"),
            **dict.fromkeys(("file_system", "python", "libfuse"), "?"),
            "cores": 2,
            "load_before": [1.5, 0, 0],
            "subjects": {},
            "notes": {},
        },
        "size": "tiny",
        "rows": [{"name": name, "title": name, "unit": "us", "part": part} for name in values],
        "values": values,
        "failures": [],
        "spent": {},
        "seconds": 1,
        "rounds": 3,
        "verdicts": [],
    }
    (place / "run.json").write_text(json.dumps(told))
    done = run([sys.executable, "-m", "benchmarks.report", str(place / "run.json")])
    assert done.returncode == 0, done.stderr
    assert "THE MACHINE WAS BUSY" in done.stdout
    found = done.stdout.partition("\ngoals")[2].partition("\n\n")[0]
    return [line.split() for line in found.splitlines()[2:]]


def test_goals_are_judged_by_ratios_within_a_round(tmp_path: Path) -> None:
    goals = shown_again(
        tmp_path,
        {
            # 0.5, 0.95 and 1 of native speed; twice as fast as the peer, and half as fast.
            "stat-warm": {"native": {0: 1, 1: 19, 2: 8}, "overlayd": {0: 2, 1: 20, 2: 8}},
            "stat-cold": {"bindfs": {0: 40}, "overlayd": {0: 20}},
            "create": {"bindfs": {0: 20}, "overlayd": {0: 40}},
            "memory-10000": {"overlayd": {0: 599}},
        },
    )
    assert [(line[0], " ".join(line[line.index("fast") + 1 :])) for line in goals[1:3]] == [
        ("stat-cold", "2.00 reached"),
        ("create", "0.50 not reached"),
    ]
    assert goals[0][-2:] == ["0.95", "reached"] and goals[3][-3:] == ["599", "bytes", "reached"]


def test_goals_of_data_are_judged_for_each_mode(tmp_path: Path) -> None:
    others = {"native": {0: 10.0}, "bindfs": {0: 45.0}}
    passthrough, ordinary = {0: 12.5}, {0: 50.0}
    modes = {"overlayd-passthrough": passthrough, "overlayd-ordinary": ordinary}
    goals = shown_again(
        tmp_path,
        {
            "read-random-4k-cached": {**others, **modes},
            "read-random-4k-again": {**others, "overlayd-passthrough": {0: 10.0}},
            "sqlite": {**others, "overlayd-ordinary": {0: 40.0}},
        },
        part="data",
    )
    # What nobody reaches, as not even the directory itself is so much faster, is shown to be so.
    missed = "3.60 not reached (native: 4.50)"
    assert [" ".join(line) for line in goals] == [
        f"read-random-4k-cached 0.80 not reached {missed} 0.90 not reached",
        "read-random-4k-again 1.00 reached not measured",
        "sqlite not measured 1.12 reached",
    ]


def test_data_is_measured_in_every_way(tmp_path: Path) -> None:
    """All of it once, on a file system of its own: only there can every cache be dropped."""
    workloads = "read-4k,read-64k,read-1m,write-4k,write-64k,write-1m,map,sqlite,copy"
    subjects = "native,overlayd-passthrough,overlayd-ordinary"
    done = run(program(tmp_path, "--only", workloads, "--subjects", subjects))
    assert done.returncode == 0, done.stderr

    told = json.loads((tmp_path / "out/latest.json").read_text())
    taking_part = {"native", "overlayd-ordinary"}
    if left_out := told["machine"]["left_out"]:
        assert left_out[0].startswith("overlayd-passthrough: ")
        assert f"left out: {left_out[0]}" in done.stderr
    else:
        taking_part.add("overlayd-passthrough")
    assert {row["name"] for row in told["rows"]} == set(told["values"])
    assert all(set(row) == taking_part for row in told["values"].values())


STATES = """
import sys, time
from pathlib import Path
from benchmarks import data, subjects

[recipe] = subjects.choose(["overlayd-ordinary"])
subject = subjects.Subject(recipe, Path(sys.argv[1]))
(subject.source / "file").write_bytes(bytes(1 << 20))
subject.mount()
for state in (data.UNCACHED, data.CACHED):
    for _ in range(100):
        data.fetch(subject.target / "file")
        if data.resident_pages(subject.target / "file"):
            break
        time.sleep(0.05)  # the next open keeps nothing yet, as the file is so new
    for top in (subject.target, subject.source):
        print(data.resident_pages(top / "file"), end=" ")
    data.bring_into(state, subject, "file")
    for top in (subject.target, subject.source):
        print(data.resident_pages(top / "file"), end=" ")
subject.unmount()
"""


def test_caches_are_in_the_state_that_is_claimed(tmp_path: Path) -> None:
    """Pages that the mount and the host hold, before and after each."""
    done = run([sys.executable, "-c", STATES, str(tmp_path)])
    assert done.stdout == "256 256 0 0 256 256 0 256 ", done.stderr


def test_what_fails_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Without a git: those workloads fail, and the others do not."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("gcc", "as", "ld", "umount", "mount", "fusermount3"):
        os.symlink(f"/usr/bin/{name}", tools / name)
    words = program(tmp_path, "--only", "stat,git-status", "--subjects", "native,bind", "--no-disk")
    done = run(words, PATH=str(tools))
    assert done.returncode == 1
    assert "FAILED planting git-status for native" in done.stderr
    told = json.loads((tmp_path / "out/latest.json").read_text())
    assert set(told["values"]) == {"stat-cold", "stat-warm"} and len(told["failures"]) == 2


def test_an_end_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    """With a file system of its own. What is left would be found by the fixture, too."""
    words = program(tmp_path, "--rounds", "1000", "--only", "stat", "--subjects", "overlayd,bind")
    process = subprocess.Popen(words, cwd=REPOSITORY, stderr=subprocess.DEVNULL)
    assert wait_until(lambda: len(mounts_below(tmp_path)) == 3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 128 + signal.SIGINT
    assert not mounts_below(tmp_path)
    assert not list(tmp_path.glob("overlayd-bench-*"))


@pytest.mark.parametrize("wrong", ["--only=nothing", "--subjects=nobody"])
def test_a_wrong_name_is_refused_before_anything_is_made(tmp_path: Path, wrong: str) -> None:
    done = run(program(tmp_path, wrong))
    assert done.returncode == 2 and done.stderr.startswith("benchmarks: ")
    assert not list(tmp_path.iterdir())

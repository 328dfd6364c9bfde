"""Races: names change as fast as they can, in the namespace and behind its back, and others write.

Whatever was hard-linked, swapped, moved or replaced by a link meanwhile: not one read-only inode
and nothing outside the writable sources has changed. OVERLAYD_ATTACK_SECONDS lengthens it.
"""

from __future__ import annotations

import multiprocessing
import os
import random
from collections import Counter
from multiprocessing.queues import SimpleQueue
from pathlib import Path

import pytest

from aliases.attackers import rage, steps_of
from aliases.snapshot import changes, snapshot
from support.mounting import mounted
from support.processes import NOBODY, User

pytestmark = [pytest.mark.usefixtures("data_way"), pytest.mark.alone]

SECONDS = float(os.environ.get("OVERLAYD_ATTACK_SECONDS", "3"))
FORK = multiprocessing.get_context("fork")
ROLES = ("host", "host", "guest", "guest", "guest", "writer", "writer", "writer", "writer")


def plant(place: Path) -> None:
    """Sources that belong to the attacker: nothing but overlayd stands in the way."""
    for name in ("w/a", "w/b", "w/c", "w/sealed/d", "p/out", "p/d", "ro/d", "canary"):
        (place / name).mkdir(parents=True)
    for name in ("w/a/n1", "w/b/n2", "w/sealed/f3", "w/sealed/d/f", "p/out/n3", "p/f2", "p/d/f"):
        (place / name).write_text(f"content of {name}")
    for name in ("ro/f0", "ro/d/f1", "canary/f"):
        (place / name).write_text(f"content of {name}")
    for name in ("ro/f0", "p/f2"):  # aliases that are there from the start
        os.link(place / name, place / "w/c" / f"n{name[-1]}")
    for path in (place, *place.rglob("*")):
        os.chown(path, NOBODY.uid, NOBODY.gid)
        os.setxattr(path, "user.kept", b"kept")
        os.utime(path, ns=(1_000_000_000, 1_000_000_000))


def protected(place: Path) -> list[Path]:
    """All that must not change; names in the masked directory are none of it."""
    return [place / name for name in ("ro", "w/sealed", "p/f2", "p/d", "canary")]


def attack(place: Path, target: Path, user: User, exchanging: bool) -> Counter[str]:
    """Let them loose and add up what came of it."""
    answers = FORK.SimpleQueue()
    processes = [
        FORK.Process(target=_rage, args=(answers, role, seed, user, exchanging, place, target))
        for seed, role in enumerate(ROLES)
    ]
    for process in processes:
        process.start()
    results: Counter[str] = Counter()
    try:
        for process in processes:
            process.join(SECONDS + 60)
            assert process.exitcode == 0, "an attacker died, or hangs"
            results.update(answers.get())
    finally:
        for process in processes:
            process.kill()
            process.join()
    return results


def _rage(
    answers: SimpleQueue[Counter[str]],
    role: str,
    seed: int,
    user: User,
    exchanging: bool,
    place: Path,
    target: Path,
) -> None:
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    chance = random.Random(seed)
    steps = steps_of(role, chance, place, target, exchanging=exchanging)
    answers.put(Counter({f"{role} {k}": n for k, n in rage(steps, chance, SECONDS).items()}))


@pytest.mark.parametrize("exchanging", [False, True], ids=["everything", "exchange"])
@pytest.mark.parametrize("user", [User(0, 0), NOBODY], ids=["root", "owner"])
@pytest.mark.timeout(SECONDS + 120)
def test_nothing_read_only_and_nothing_outside_changes(
    user: User, exchanging: bool, open_path: Path
) -> None:
    plant(open_path)
    dirs = ["ro::/ro::ro", "w::/w", "w/sealed::/sealed::ro", "p::/p::ro", "p/out::/p/out"]
    preopens = [f"{open_path}/{entry}" for entry in dirs]
    before = snapshot(protected(open_path), counts=False)
    with mounted(open_path, *preopens, options=["--allow-other"]) as target:
        results = attack(open_path, target, user, exchanging)
        assert (target / "ro/f0").read_text() == "content of ro/f0"
    assert not (found := changes(before, snapshot(protected(open_path), counts=False))), found
    # It was an attack only if writers got through where they may, and were refused elsewhere.
    for what in ("writer write ok", "writer write EROFS", "writer change EROFS"):
        assert results[what] > 20, results
    for role in ("host", "guest"):
        assert results[f"{role} exchange ok"] > 20, results
    assert results["host link ok"] > 20 and results["guest link ok"] == 0, results

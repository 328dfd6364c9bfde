"""A unit as its administrator looks at it: the journal with priorities, status from a shell."""

from __future__ import annotations

import json

from support.instance import Instance
from support.machine import Machine


def test_the_journal_has_priorities_and_no_dates_of_ours(
    machine: Machine, instance: Instance
) -> None:
    instance.start()
    machine.run("mkdir", f"{instance.target}/new", check=False)
    words = ["journalctl", "--no-pager", "-o", "json", "-p", "warning", "-u", instance.unit]
    lines = [json.loads(line) for line in machine.run(*words).stdout.splitlines()]
    (denied,) = [line for line in lines if "denied mkdir" in line["MESSAGE"]]
    assert denied["PRIORITY"] == "4"
    assert denied["MESSAGE"].startswith("overlayd.core.denials: denied mkdir of /")
    assert not any("serving" in line["MESSAGE"] for line in lines)
    assert f"serving {instance.target}" in machine.journal(instance.unit)


def test_status_and_explain_from_a_shell(machine: Machine, instance: Instance) -> None:
    daemon = instance.start()
    machine.run("cat", f"{instance.target}/file")
    answer = json.loads(machine.run("overlayd", "status", "--json", instance.target).stdout)
    assert (answer["state"], answer["target"]) == ("live", instance.target)
    assert machine.main_pid(instance.unit) == daemon
    assert answer["status"]["operations"]["read"] >= 1
    assert instance.target in machine.run("overlayd", "status").stdout
    explained = machine.run("overlayd", "explain", "--target", instance.target, "/file").stdout
    assert f"host path: {instance.source}/file" in explained

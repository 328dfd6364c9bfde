"""overlayd status."""

import json
from typing import Any

import click

from overlayd.cli import completion
from overlayd.cli.live import record_of
from overlayd.cli.options import read_timeout
from overlayd.cli.tables import amount, duration, show_table
from overlayd.errors import OverlaydError, UsageError
from overlayd.service.survey import Seen, State, look_at, survey
from overlayd.table.guest_path import printable

_NUMBERS = frozenset(("PID", "PREOPENS", "OPEN", "OPS", "READ", "WRITTEN", "DENIED"))


@click.command("status")
@click.option("--json", "as_program", is_flag=True, help="Print one JSON object.")
@click.option("--metrics", is_flag=True, help="Print the counters as Prometheus text.")
@click.option(
    "--timeout",
    "seconds",
    callback=read_timeout,
    default="5",
    metavar="SECONDS",
    help="How long to wait for a daemon. Default: 5.",
)
@click.argument("target", required=False, shell_complete=completion.mounted)
def command(target: str | None, as_program: bool, metrics: bool, seconds: float) -> int:
    """Show the live mounts of this user, or what the one on TARGET does, preopen by preopen.

    Exit status 1 where TARGET is named and is dead or does not answer.
    """
    if as_program and metrics:
        raise UsageError("--json and --metrics: give one of them")
    seen = survey(seconds) if target is None else [look_at(record_of(target), seconds)]
    if metrics:
        from overlayd.cli.metrics import exposition

        click.echo(exposition(seen), nl=False)
    elif as_program:
        objects = [one.as_json() for one in seen]
        click.echo(json.dumps({"mounts": objects} if target is None else objects[0], indent=2))
    elif target is None:
        _print_all(seen)
    elif seen[0].status is not None:
        _print_one(seen[0].status)
    if target is not None and seen[0].state is not State.LIVE:
        raise OverlaydError(seen[0].words)
    return 0


def _print_all(seen: list[Seen]) -> None:
    if not seen:
        click.echo("no mounts of this user")
        return
    headers = ("TARGET", "STATE", "PID", "UPTIME", "PREOPENS", "OPEN", "OPS")
    rows = [_row(one) for one in seen]
    show_table((*headers, "READ", "WRITTEN", "DENIED"), rows, numbers=_NUMBERS)
    for one in seen:
        if one.state is not State.LIVE:
            click.echo(one.words, err=True)


def _row(one: Seen) -> tuple[str, ...]:
    first = (printable(one.record.target), one.state.value, str(one.record.pid))
    status = one.status
    if status is None:
        return (*first, "", str(len(one.record.preopens)), *[""] * 5)
    preopens = status["preopens"]
    return (
        *first,
        duration(status["uptime_seconds"]),
        str(len(preopens)),
        str(status["handles"]),
        str(sum(status["operations"].values())),
        amount(sum(preopen["bytes_read"] for preopen in preopens)),
        amount(sum(preopen["bytes_written"] for preopen in preopens)),
        str(sum(status["denials"].values())),
    )


def _print_one(status: dict[str, Any]) -> None:
    settings = status["settings"]
    others = ", ".join(f"{name} {settings[name]}" for name in ("cache", "alias", "symlinks"))
    click.echo(printable(status["target"]))
    _line("daemon", f"pid {status['pid']}, version {status['version']}, {_life(status)}")
    _line("settings", f"{others}, errors {settings['errors']}{_for_others(settings)}")
    _line(
        "memory",
        f"{amount(status['memory_bytes'])}; {status['inodes']} inodes known,"
        f" {status['handles']} handles open, {status['descriptors']} descriptors cached",
    )
    _line("data", _data(status["passthrough"]))
    for name in ("operations", "errors", "denials"):
        _line(name, _counts(status[name]))
    if status["log_lines_lost"]:
        _line("log", f"{status['log_lines_lost']} lines lost")
    click.echo()
    headers = ("GUEST", "HOST", "MODE", "OPEN", "OPS", "READ", "WRITTEN", "DENIED")
    rows = [
        (
            *(preopen["guest"], preopen["host"], preopen["mode"]),
            *(str(preopen["handles"]), str(preopen["operations"])),
            *(amount(preopen["bytes_read"]), amount(preopen["bytes_written"])),
            *(str(preopen["denials"]), preopen["cache"]),
        )
        for preopen in status["preopens"]
    ]
    show_table((*headers, "CACHE"), rows, numbers=_NUMBERS)


def _line(name: str, words: str) -> None:
    click.echo(f"  {name + ':':<12}{words}")


def _life(status: dict[str, Any]) -> str:
    return f"up {duration(status['uptime_seconds'])}"


def _data(passthrough: dict[str, Any]) -> str:
    if not passthrough["on"]:
        return f"through the daemon: {passthrough['obstacle']}"
    words = f"past the daemon; {passthrough['files']} files open so"
    refused = passthrough["refused"]
    return f"{words}, through the daemon: {_counts(refused)}" if refused else words


def _for_others(settings: dict[str, Any]) -> str:
    return ", allow_other" if settings["allow_other"] else ""


def _counts(counts: dict[str, int]) -> str:
    """The counts, the largest first."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count}" for name, count in ordered) or "none"

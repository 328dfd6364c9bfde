"""mount.overlayd: what mount(8) says for fstab and for `mount -t overlayd`.

The words of fstab become those of `overlayd mount`, which then does the work; only the exit status
is mount(8)'s own.
"""

import re
from dataclasses import fields
from typing import Any

import click

from overlayd import __version__
from overlayd.cli import commands, mount
from overlayd.cli.options import Request, absolute_target, open_table
from overlayd.errors import OverlaydError, UsageError
from overlayd.service.mount_options import parse_mount_options
from overlayd.table.guest_path import printable

PROGRAM = "mount.overlayd"
_WRONGLY_CALLED = 1
_MOUNT_FAILED = 32
"""What mount(8) promises these two exit statuses for."""

_VALUED = frozenset(
    ("dir", "config", "alias", "symlinks", "errors", "cache")
    + ("passthrough", "log_level", "log_format", "log_file")
)
_SWITCHES = {"no_allow_other": "--no-allow-other", "replace": "--replace"}
_OPTION = re.compile(r'(?:[^",]|"[^"]*")+')
"""Options end at a comma, except for one inside double quotes, as in mount(8)."""


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="It is mount(8) that calls this; see mount.overlayd(8) for lines of fstab(5).",
)
@click.version_option(__version__, "-V", "--version", prog_name=PROGRAM)
@click.option("-f", "--fake", is_flag=True, help="Check everything, mount nothing.")
@click.option("-n", "--no-mtab", is_flag=True, help="Accepted; there is no mtab.")
@click.option("-s", "--sloppy", is_flag=True, help="Ignore mount options that nobody knows.")
@click.option("-v", "--verbose", is_flag=True, help="Show the overlayd command that is meant.")
@click.option(
    "-o",
    "texts",
    multiple=True,
    metavar="OPTION[,OPTION...]",
    help='dir="HOST::GUEST::ro" (repeatable), config=FILE, other options of overlayd mount without'
    " their dashes (cache=none, allow_other), and those of its -o (ro, noatime, ...).",
)
@click.option("-t", "kind", metavar="TYPE", help="Accepted; overlayd or fuse.overlayd.")
@click.argument("source")
@click.argument("target")
def helper(
    source: str,
    target: str,
    texts: tuple[str, ...],
    fake: bool,
    sloppy: bool,
    verbose: bool,
    **_accepted: Any,
) -> int:
    """Mount the namespace that SOURCE describes on TARGET.

    SOURCE is a configuration file; without a slash in it, a mere name, where -o dir= or
    -o config= say what to mount.
    """
    arguments, dropped = translate(source, target, texts, sloppy=sloppy)
    if verbose:
        for word in dropped:
            click.echo(f"{PROGRAM}: ignored: {word}")
        click.echo(f"{PROGRAM}: overlayd mount {' '.join(arguments)}")
    with mount.command.make_context("overlayd mount", arguments) as context:
        if fake:
            _examine(context.params)
        else:
            mount.command.invoke(context)
    return 0


def translate(
    source: str, target: str, texts: tuple[str, ...], *, sloppy: bool = False
) -> tuple[list[str], list[str]]:
    """The arguments of `overlayd mount`, and the options that nobody knows (where *sloppy*).

    Raises UsageError for an option that nobody knows, or one without its value.
    """
    arguments: list[str] = []
    rest: list[str] = []
    dropped: list[str] = []
    if "/" in source:  # a name without one is what fstab has for things that are no device
        arguments += ["--config", source]
    for text in texts:
        if text.count('"') % 2:
            raise UsageError(f"-o {printable(text)}: a double quote is not closed; add it")
    words = [word for text in texts for word in _OPTION.findall(text)]
    if "remount" in words:
        raise OverlaydError(
            f"{target}: a mount of overlayd cannot be remounted with other options; change its"
            f" configuration and use overlayd reload {target}, or unmount it first"
        )
    for word in words:
        name, equals, value = word.partition("=")
        name = name.replace("-", "_") if name.replace("-", "_") in _VALUED else name
        if name in _VALUED:
            arguments += [f"--{name.replace('_', '-')}", _unquoted(name, equals, value)]
        elif word in _SWITCHES:
            arguments.append(_SWITCHES[word])
        else:
            (rest if _is_known(word, sloppy) else dropped).append(word)
    if not any(word.startswith("fsname=") for word in rest) and not set(source) & set(",\\"):
        rest.append(f"fsname={source}")  # so that mount -a finds its line of fstab mounted
    return [*arguments, "-o", ",".join(rest), "--", target], dropped


def _unquoted(name: str, equals: str, value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    if not equals or not value:
        raise UsageError(f"-o {name}: {name} needs a value, as in {name}=VALUE")
    return value


def _is_known(word: str, sloppy: bool) -> bool:
    """Whether mount(8)'s own options have it; raises UsageError where not, unless *sloppy*."""
    try:
        parse_mount_options((word,))
    except UsageError as error:
        if sloppy:
            return False
        known = ", ".join([*sorted(f"{name}=" for name in _VALUED), *_SWITCHES])
        raise UsageError(f"{error}, {known}") from None
    return True


def _examine(asked: dict[str, Any]) -> None:
    """Everything but the mount: `mount -f` says what is wrong with a line of fstab."""
    known = {field.name for field in fields(Request)}
    request = Request(**{name: asked[name] for name in known & asked.keys()}).with_config()
    absolute_target(asked["target"], request)
    parse_mount_options(asked["mount_options"])
    open_table(request)


def run() -> int:
    """Do what mount(8) asks for; the exit status that it expects."""
    status = commands.complaining(
        PROGRAM, lambda: helper.main(prog_name=PROGRAM, standalone_mode=False)
    )
    return {0: 0, UsageError.exit_code: _WRONGLY_CALLED}.get(status, _MOUNT_FAILED)

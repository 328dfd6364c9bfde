"""Options that several commands share, and the plan they add up to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from overlayd.cli import completion
from overlayd.core.types import Rules, SymlinkMode
from overlayd.errors import UsageError
from overlayd.host.locations import Locator
from overlayd.host.mounts import resolve_mount_point
from overlayd.host.sources import Source, open_sources
from overlayd.kernel.cache import CachePolicy
from overlayd.service.health import seconds_in
from overlayd.table.aliases import find_aliases, refuse_conflicts
from overlayd.table.guest_path import printable
from overlayd.table.mount_tree import MountTable, build_table
from overlayd.table.preopen import Preopen, parse_preopen

if TYPE_CHECKING:  # what reads and checks a file is for those who have one
    from overlayd.table.config import ConfigFile

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Request:
    """What the shared options and the configuration file ask for, the options first."""

    dirs: tuple[str, ...] = ()
    config_path: str | None = None
    config: "ConfigFile | None" = None
    alias: str | None = None
    symlinks: str | None = None
    errors: str | None = None
    cache: str | None = None
    allow_other: bool | None = None
    passthrough: str | None = None
    log_level: str | None = None
    log_format: str | None = None
    log_file: str | None = None
    base: str = ""
    """Where relative host paths start, if not from the working directory."""
    lifted: tuple[Preopen, ...] = ()
    """Entries that COMMAND of `run` names, in its runtime's own words."""

    def with_config(self) -> "Request":
        """The same with the configuration file read. Raises UsageError where it is wrong."""
        if self.config_path is None:
            return self
        from overlayd.table.config import read_config

        return replace(self, config=read_config(self.config_path))

    def setting(self, name: str, default: Any) -> Any:
        """The option *name* as given, else as the file says, else *default*."""
        for source in (self,) if self.config is None else (self, self.config):
            value = getattr(source, name)
            if value is not None:
                return value
        return default

    def table(self) -> MountTable:
        """The mount table. Raises UsageError."""
        preopens = [parse_preopen(text) for text in self.dirs]
        if self.config is not None and self.config_path is not None:
            from overlayd.table.config import config_preopens

            preopens += config_preopens(self.config, self.config_path)
        return build_table([*preopens, *self.lifted])

    def cache_policy(self) -> CachePolicy:
        """What the kernel may keep. Raises UsageError."""
        try:
            return CachePolicy.parse(str(self.setting("cache", "coherent")))
        except ValueError:
            origin = (
                f"--cache {self.cache}" if self.cache is not None else f"{self.config_path}: cache"
            )
            raise UsageError(
                f"{printable(origin)}: give coherent, none, or a number of seconds up to 86400"
            ) from None

    def rules(self) -> Rules:
        """How the namespace behaves."""
        return Rules(symlinks=cast(SymlinkMode, self.setting("symlinks", "rebase")))


def open_table(request: Request) -> tuple[MountTable, tuple[Source, ...]]:
    """The table and its opened sources. Raises UsageError, for a refused alias too."""
    request.cache_policy()  # every command tells what is wrong with the settings
    table = request.table()
    sources = open_sources(table, request.base)
    if request.setting("alias", "ro-wins") == "refuse":
        refuse_conflicts(find_aliases(table, Locator(table, sources).parts))
    return table, sources


_TABLE_OPTIONS = (
    click.option(
        "--dir",
        "dirs",
        multiple=True,
        metavar="HOST[::GUEST[::ro|rw]]",
        shell_complete=completion.preopen,
        help="Attach the host directory (or file) HOST at the guest path GUEST; writable"
        " unless ::ro is given. Repeatable.",
    ),
    click.option(
        "--config",
        "config_path",
        metavar="FILE",
        shell_complete=completion.files,
        help="Read a TOML file, see overlayd.toml(5); --dir adds to it.",
    ),
    click.option(
        "--alias",
        type=click.Choice(("ro-wins", "refuse")),
        help="Where one host directory is shown both ro and rw: ro everywhere (ro-wins, the"
        " default), or refuse to mount it.",
    ),
    click.option(
        "--symlinks",
        type=click.Choice(("rebase", "verbatim")),
        help="What readlink returns: a target that stays inside the namespace (rebase, the"
        " default), or the stored one.",
    ),
    click.option(
        "--errors",
        type=click.Choice(("posix", "wasi")),
        help="wasi answers EPERM for EROFS, which wasmtime turns into EIO. Default: posix;"
        " with run, wasi for wasmtime.",
    ),
    click.option(
        "--cache",
        metavar="coherent|none|SECONDS",
        shell_complete=completion.cache_words,
        help="How long the kernel may keep what it was told. Default: coherent, a change on"
        " the host shows within 100 ms.",
    ),
)

_DAEMON_OPTIONS = (
    click.option(
        "--allow-other/--no-allow-other",
        default=None,
        help="Let other users in, with ordinary permission checks. Default: only you.",
    ),
    click.option(
        "--passthrough",
        type=click.Choice(("auto", "off", "require")),
        help="Have the kernel read and write open files itself: where it can (auto, the default),"
        " never, or do not mount without.",
    ),
    click.option(
        "--log-level",
        type=click.Choice(("debug", "info", "warning", "error")),
        help="The least that is logged. Default: info.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(("text", "json")),
        help="How a line of the log looks. Default: text.",
    ),
    click.option(
        "--log-file",
        metavar="FILE",
        shell_complete=completion.files,
        help="Write the log there. Default: syslog, or stderr with mount -f.",
    ),
)


def table_options(command: F) -> F:
    """--dir, --config and what decides how the namespace behaves."""
    return _with(command, _TABLE_OPTIONS)


def daemon_options(command: F) -> F:
    """What concerns the daemon behind a mount."""
    return _with(command, _DAEMON_OPTIONS)


def _with(command: F, options: Sequence[Callable[[F], F]]) -> F:
    for option in reversed(options):
        command = option(command)
    return command


def read_timeout(_ctx: click.Context, _option: click.Parameter, text: str) -> float:
    """The value of --timeout, in seconds. Raises UsageError."""
    seconds = seconds_in(text)
    if seconds is None:
        shown = printable(text) or repr(text)
        raise UsageError(f"--timeout {shown}: give a number of seconds above 0, up to 3600")
    return seconds


def absolute_target(target: str | None, request: Request) -> str:
    """The target from the command line or the file, absolute. Raises UsageError."""
    named = request.config.target if request.config is not None else None
    chosen = target if target is not None else named
    if target == "":
        raise UsageError("TARGET is empty; name a directory")
    if not chosen:
        raise UsageError("no target: name a directory to mount on, or set target in the file")
    if "\0" in chosen:
        raise UsageError("the target holds a NUL byte; no path can hold one")
    try:
        return resolve_mount_point(chosen)
    except OSError as error:  # a relative path, and the working directory is gone
        raise UsageError(
            f"target {printable(chosen)}: {(error.strerror or '').lower()}; give an absolute path"
        ) from None

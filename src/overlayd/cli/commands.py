"""The commands: dispatch, and the one place where errors become a line and a status."""

import errno
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from overlayd import __version__
from overlayd.errors import OverlaydError, UsageError
from overlayd.table.guest_path import printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_COMMANDS = {
    "mount": "Mount the namespace on TARGET and leave a daemon.",
    "umount": "Unmount TARGET and wait until its daemon has gone.",
    "run": "Mount, run COMMAND with the namespace, unmount.",
    "reload": "Apply what the configuration of TARGET says now, without unmounting.",
    "status": "Show the live mounts, or what the one on TARGET does.",
    "health": "Exit 0 when the mount on TARGET answers in time.",
    "check": "Show what the preopens amount to; mounts nothing.",
    "explain": "Say what provides a guest path, and whether it is writable.",
}


_EPILOG = """\b
Examples:
  overlayd run --dir /srv/app::/ --dir /srv/lib::/lib::ro -- wasmtime run --dir {}::/ app.wasm
  overlayd check --config /etc/overlayd/guest.toml
  overlayd mount --config /etc/overlayd/guest.toml /run/guest

\b
Exit status: 0 done, 1 it failed, 2 the command line or the configuration is wrong.
overlayd COMMAND --help tells what a command takes, man overlayd all of it.
"""


class _LazyGroup(click.Group):
    """Imports a command's module only when it is the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = __import__(f"overlayd.cli.{cmd_name}", fromlist=["command"])
        command: click.Command = module.command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem[str]]":
        """Commands and options, without importing every command for its first line of help."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=text) for name, text in _COMMANDS.items()]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [item for item in found if item.value.startswith(incomplete)] + options

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_EPILOG,
)
@click.version_option(__version__, prog_name="overlayd")
def cli() -> None:
    """One real mount namespace out of several WASI preopens.

    overlayd turns a list of --dir HOST::GUEST[::ro] into one directory, to be handed to a runtime
    as its single --dir TARGET::/. Nested mounts truly mask; read-only holds.
    """


def run() -> int:
    """Run the command line; the exit status: 0 done, 1 it failed, 2 the command line is wrong."""
    return complaining("overlayd", lambda: cli.main(prog_name="overlayd", standalone_mode=False))


def complaining(program: str, action: Callable[[], object]) -> int:
    """Do *action*; what it raises becomes one line that begins with *program*, and a status."""
    try:
        status = action()
    except (Exception, KeyboardInterrupt) as error:
        return complain(program, error)
    return status if isinstance(status, int) else 0


def complain(program: str, error: BaseException) -> int:
    """Say on stderr what *error* means, and return its status; raise it if nobody foresaw it."""

    def say(words: str, status: int) -> int:
        click.echo(f"{program}: error: {printable(words)}", err=True)
        return status

    match error:
        case OverlaydError():
            return say(str(error), error.exit_code)
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            return UsageError.exit_code
        case click.UsageError():
            return say(_in_our_words(error), UsageError.exit_code)
        case click.Abort() | KeyboardInterrupt():
            return say("interrupted", OverlaydError.exit_code)
        case BrokenPipeError():
            sys.stderr.close()
            return OverlaydError.exit_code
        case OSError():
            return say(_in_words(error), OverlaydError.exit_code)
    raise error


def _in_words(error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    if error.errno == errno.ENOSPC:
        return f"the output cannot be written: {reason}; send it to another place"
    return reason


def _in_our_words(error: click.UsageError) -> str:
    """click's sentences as one, with the way to the help."""
    likely = getattr(error, "possibilities", None)
    words = " ".join((error.message if likely else error.format_message()).split()).rstrip(".")
    guess = f" (did you mean {' or '.join(likely)}?)" if likely else ""
    hint = f"; see {error.ctx.command_path} --help" if error.ctx is not None else ""
    return words[:1].lower() + words[1:] + guess + hint

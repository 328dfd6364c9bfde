"""From what was asked for to a plan that can be mounted; loads the FUSE side of the program."""

from collections.abc import Callable
from typing import cast

from overlayd.cli.options import Request, open_table
from overlayd.errors import OverlaydError
from overlayd.kernel.operations import ErrorStyle
from overlayd.service.logs import LogFormat, set_up_logging
from overlayd.service.mount_options import parse_mount_options
from overlayd.service.plan import MountPlan
from overlayd.service.warnings import check_allow_other
from overlayd.table.guest_path import printable


def make_plan(
    request: Request,
    target: str,
    *,
    replace: bool = False,
    mount_options: tuple[str, ...] = (),
    default_errors: ErrorStyle = "posix",
    remove_target: bool = False,
) -> MountPlan:
    """Settle everything before anything is mounted.

    Raises UsageError, and OverlaydError for what this user may not do.
    """
    options = parse_mount_options(mount_options)
    table, sources = open_table(request)
    allow_other = request.setting("allow_other", False) or "allow_other" in options
    if allow_other:
        check_allow_other()
    return MountPlan(
        target=target,
        table=table,
        sources=sources,
        rules=request.rules(),
        cache=request.cache_policy(),
        errors=cast(ErrorStyle, request.setting("errors", default_errors)),
        allow_other=allow_other,
        replace=replace,
        mount_options=options,
        remove_target=remove_target,
    )


def log_setup(request: Request, *, background: bool) -> Callable[[], None]:
    """What starts logging, in whichever process is to log."""
    level = request.setting("log_level", "info")
    form = cast(LogFormat, request.setting("log_format", "text"))

    def start() -> None:
        try:
            set_up_logging(level, form, request.log_file, background=background)
        except OSError as error:
            raise OverlaydError(
                f"--log-file {printable(str(request.log_file))}: {(error.strerror or '').lower()};"
                " name a file that can be written"
            ) from None

    return start

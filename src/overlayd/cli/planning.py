"""From what was asked for to a plan that can be mounted."""

import os
from collections.abc import Callable
from dataclasses import replace as changed
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from overlayd.cli.options import Request, open_table
from overlayd.service.logs import LogFormat, set_up_logging
from overlayd.service.mount_options import parse_mount_options
from overlayd.service.plan import MountPlan
from overlayd.service.warnings import check_allow_other

if TYPE_CHECKING:
    from overlayd.core.types import ErrorStyle
    from overlayd.kernel.passthrough import Mode


def make_plan(
    request: Request,
    target: str,
    *,
    replace: bool = False,
    mount_options: tuple[str, ...] = (),
    default_errors: "ErrorStyle" = "posix",
    remove_target: bool = False,
) -> MountPlan:
    """Settle everything before anything is mounted.

    Raises UsageError, and OverlaydError for what this user may not do.
    """
    options = parse_mount_options(mount_options)
    table, sources = open_table(request)
    read_again = partial(
        _make_plan_again,
        _lasting(request),
        target,
        mount_options=mount_options,
        default_errors=default_errors,
        remove_target=remove_target,
    )
    allow_other = request.setting("allow_other", False) or "allow_other" in options
    if allow_other:
        check_allow_other()
    passthrough = cast("Mode", request.setting("passthrough", "auto"))
    return MountPlan(
        target=target,
        table=table,
        sources=list(sources),
        rules=request.rules(),
        cache=request.cache_policy(),
        errors=cast("ErrorStyle", request.setting("errors", default_errors)),
        alias=request.setting("alias", "ro-wins"),
        allow_other=allow_other,
        replace=replace,
        mount_options=options,
        passthrough=passthrough,
        may_pass=passthrough != "off",
        remove_target=remove_target,
        log_level=request.setting("log_level", "info"),
        read_again=read_again,
    )


def _make_plan_again(request: Request, target: str, **as_before: Any) -> MountPlan:
    return make_plan(request.with_config(), target, **as_before)


def _lasting(request: Request) -> Request:
    """*request* in words that mean the same in a daemon, whose working directory is `/`."""
    try:
        base = request.base or os.getcwd()
    except OSError:  # it is gone, and with it whatever a relative path could have meant
        base = ""
    path = request.config_path
    return changed(
        request,
        base=base,
        config=None,
        config_path=None if path is None else os.path.join(base, path),
    )


def log_setup(request: Request, *, background: bool) -> Callable[[], None]:
    """What starts logging, in whichever process is to log."""
    level = request.setting("log_level", "info")
    form = cast(LogFormat, request.setting("log_format", "text"))
    return partial(set_up_logging, level, form, request.log_file, background=background)

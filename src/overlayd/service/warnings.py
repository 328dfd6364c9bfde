"""What users cannot see, and ought to be told: decisions on facts, and the facts of this machine.

Each decision is a function of what is passed in and gives the words, or None.
"""

import os
import shutil
from dataclasses import dataclass

from overlayd.errors import OverlaydError
from overlayd.host.mounts import mount_at
from overlayd.host.propagation import (
    init_sees,
    is_in_container,
    may_mount,
    propagation,
    shares_namespace_with_init,
)
from overlayd.table.guest_path import printable

_FUSE_CONF = "/etc/fuse.conf"
_HELPER_PLACES = ("/bin", "/usr/bin")
"""Where distributions put fusermount3; one built elsewhere reads another configuration file."""


def ignored_mode(runtime: str, value: str, *, lifted: bool) -> str:
    """The third field of a directory option of COMMAND, which its *runtime* does not look at."""
    option = f"{runtime} --dir {printable(value)}"
    if lifted:
        return f"{option}: {runtime} itself ignores the third field; overlayd acts on it"
    return (
        f"{option}: {runtime} ignores the third field, and the guest may write there;"
        " make it a --dir of overlayd"
    )


# -- a mount that nobody sees ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Visibility:
    """Who may see a live mount. None stands for what this process may not know."""

    same_namespace_as_init: bool | None
    """Whether PID 1 is in our mount namespace."""
    seen_by_init: bool | None
    """Whether the mount has reached PID 1's namespace."""
    in_container: bool
    """Whether PID 1 is a container's and not the machine's."""
    is_service: bool
    """Whether it is served in the foreground: in a container, by a sidecar and for others."""
    shared: bool
    """Whether the mount is shared, as one on a shared mount becomes."""
    on_slave: bool
    """Whether the target lies on a mount that takes from another namespace."""


def unseen_mount(target: str, facts: Visibility) -> str | None:
    """Whether a live mount on *target* stays hidden from those it may be meant for."""
    shown = printable(target)
    if facts.same_namespace_as_init is False:
        return _private(shown) if facts.seen_by_init is False else None
    if facts.in_container:
        return _unshared(shown) if facts.is_service and not facts.shared else None
    if facts.same_namespace_as_init is None and facts.on_slave:
        # PID 1 is closed to a unit with few capabilities. Nothing on the machine itself is a slave.
        return _private(shown)
    return None


def _unshared(shown: str) -> str:
    return (
        f"{shown} is not on a shared mount: nobody outside this container will see this mount;"
        " give the volume bind-propagation=rshared (Kubernetes: mountPropagation: Bidirectional)"
    )


def _private(shown: str) -> str:
    return (
        f"{shown} lies in a private mount namespace: nobody outside will see this mount;"
        " in a systemd unit, take out what makes one (PrivateTmp=, ProtectSystem=, ...),"
        " or make the mount that holds the target shared with the host"
    )


def warning_for_mount(target: str, *, foreground: bool) -> str | None:
    """What is to be said about the live mount on *target*, served in the *foreground* or not."""
    mount = mount_at(target)
    if mount is None:  # gone again already
        return None
    passes_on = propagation(mount.mount_id)
    facts = Visibility(
        same_namespace_as_init=shares_namespace_with_init(),
        seen_by_init=init_sees(mount.dev),
        in_container=is_in_container(),
        is_service=foreground,
        shared=passes_on.shared,
        on_slave=passes_on.on_slave,
    )
    return unseen_mount(target, facts)


# -- others, without the administrator's consent --------------------------------------------------


def has_consent(fuse_conf: str) -> bool:
    """Whether *fuse_conf*, the text of that file, lets users pass allow_other."""
    return any(line.strip() == "user_allow_other" for line in fuse_conf.splitlines())


def check_allow_other() -> None:
    """Say before fusermount3 does that users may not pass allow_other here.

    Raises OverlaydError with the cure. Where it cannot be known, fusermount3 has its say.
    """
    helper = shutil.which("fusermount3")
    if may_mount() or helper is None or os.path.dirname(helper) not in _HELPER_PLACES:
        return
    try:
        with open(_FUSE_CONF, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except FileNotFoundError:
        text = ""
    except OSError:
        return
    if not has_consent(text):
        raise OverlaydError(
            "--allow-other needs the administrator's consent: have the line user_allow_other"
            f" put into {_FUSE_CONF}, or mount as root"
        )

"""overlayd umount."""

import click

from overlayd.cli import completion
from overlayd.cli.options import Request, absolute_target
from overlayd.errors import OverlaydError
from overlayd.host.mounts import mount_at
from overlayd.service.ours import is_ours, not_ours
from overlayd.service.registry import DaemonWatch
from overlayd.service.target import take_down
from overlayd.table.guest_path import printable

_PATIENCE_SECONDS = 1.0
_WAIT_SECONDS = 10.0


@click.command("umount")
@click.option(
    "--lazy", is_flag=True, help="Detach a busy mount now; its daemon goes when nobody uses it."
)
@click.argument("target", shell_complete=completion.mounted)
def command(target: str, lazy: bool) -> None:
    """Unmount TARGET and wait until its daemon has gone.

    Clears a dead mount too. Only overlayd's own mounts are touched.
    """
    path = absolute_target(target, Request())
    shown = printable(path)
    mount = mount_at(path)
    if mount is None:
        raise OverlaydError(f"{shown} is not mounted")
    if not is_ours(mount):
        raise OverlaydError(f"{shown} {not_ours(mount)}; use umount {shown}")
    daemon = DaemonWatch(mount.dev)
    take_down(path, mount, lazy=lazy)
    if lazy or daemon.wait(_PATIENCE_SECONDS):
        return
    daemon.stop()  # nobody uses it here: another mount namespace holds a copy of the mount
    if not daemon.wait(_WAIT_SECONDS):
        raise OverlaydError(f"{shown} is unmounted, but its daemon is still busy with requests")

"""mount.overlayd: what mount(8) calls. As in `main`, a daemon is forked before click is loaded."""

import sys
from contextlib import nullcontext

from overlayd.cli.afresh import start_afresh
from overlayd.service.background import early_daemon

TYPE_CHECKING = False  # as in typing
if TYPE_CHECKING:
    from typing import NoReturn

_NO_MOUNT = {"-f", "--fake", "-h", "--help", "-V", "--version"}


def main() -> "NoReturn":
    """Exit as mount(8) promises: 0 mounted, 1 wrong words, 32 it failed."""
    start_afresh()
    with nullcontext() if _NO_MOUNT & set(sys.argv[1:]) else early_daemon():
        from overlayd.cli.fstab import run

        status = run()
    sys.exit(status)


if __name__ == "__main__":
    main()

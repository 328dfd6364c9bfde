"""overlayd as another user: `as_user.py UID GID ARGUMENT...`, started by root.

The interpreter, the libraries and the checkout may lie where only root gets to: everything is
imported first, and the user is changed then.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import pkgutil
import sys

import overlayd

_PR_SET_DUMPABLE = 4


def main() -> None:
    for module in pkgutil.walk_packages(overlayd.__path__, "overlayd."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    uid, gid = int(sys.argv[1]), int(sys.argv[2])
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    # As after execve(2): otherwise /proc/self belongs to root.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    sys.argv[1:] = sys.argv[3:]
    importlib.import_module("overlayd.cli.main").main()


if __name__ == "__main__":
    main()

"""A daemon's handlers over a socket instead of /dev/fuse, on one real directory.

Started by `support.wire_client.served`, with the socket's descriptor, the source, and whether to
answer directly.
"""

from __future__ import annotations

import sys

from overlayd.kernel import wire

# isort: split
import pyfuse3
import trio

from overlayd.kernel.cache import CachePolicy
from overlayd.kernel.direct import answer_directly
from overlayd.kernel.loop import RequestLoop
from overlayd.kernel.operations import Operations
from support.core_guest import make_overlay


def main() -> None:
    descriptor, source, directly = sys.argv[1:]
    operations = Operations(make_overlay(f"{source}::/"), CachePolicy.parse("1.5"), "posix")
    loop = RequestLoop(2)
    operations.away = loop.away
    loop.install()
    wire.want()
    pyfuse3.init(operations, f"/dev/fd/{descriptor}", set())
    if directly == "yes":
        loop.reads_ahead = answer_directly(operations, polls=True)
        assert loop.reads_ahead
    trio.run(pyfuse3.main)


if __name__ == "__main__":
    main()

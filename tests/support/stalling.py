"""overlayd that stops dead at one point: `stalling.py MODULE NAME WHEN MARKER -- ARGUMENTS…`.

WHEN is `before` or `after`. There it writes its process id into MARKER and does nothing more, until
it is killed.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from functools import reduce
from pathlib import Path
from typing import Any, NoReturn


def main() -> None:
    module, dotted, when, marker = sys.argv[1:5]
    *path, name = dotted.split(".")
    owner: Any = reduce(getattr, path, importlib.import_module(module))
    original = getattr(owner, name)

    def stalls(*args: Any, **kwargs: Any) -> NoReturn:
        if when == "after":
            original(*args, **kwargs)
        scratch = Path(f"{marker}.new")
        scratch.write_text(str(os.getpid()))
        scratch.rename(marker)
        while True:
            time.sleep(60)

    setattr(owner, name, stalls)
    sys.argv = ["overlayd", *sys.argv[6:]]
    importlib.import_module("overlayd.cli.main").main()


if __name__ == "__main__":
    main()

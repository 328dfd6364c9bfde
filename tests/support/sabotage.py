"""overlayd with one method of the core broken: `sabotage.py MODULE CLASS METHOD -- ARGUMENTS…`.

The method always raises what nobody planned for; `lookup`, which everything needs, only when it is
asked for the name `trap`.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main() -> None:
    module, owner, method = sys.argv[1:4]
    target = getattr(importlib.import_module(module), owner)
    original = getattr(target, method)

    def broken(*args: Any, **kwargs: Any) -> Any:
        if method != "lookup" or b"trap" in args:
            raise KeyError("sabotage")
        return original(*args, **kwargs)

    setattr(target, method, broken)
    sys.argv = ["overlayd", *sys.argv[5:]]
    importlib.import_module("overlayd.cli.main").main()


if __name__ == "__main__":
    main()

"""Loading a library without what it imports for uses that we do not make of it.

A daemon keeps what it has loaded for as long as it lives, and a host may have a hundred of them.
"""

import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any


def load(name: str, instead: Mapping[str, Mapping[str, object]]) -> None:
    """Import module *name*, which gets for each of *instead* one that holds only what is given.

    Such a stand-in loads the real module when anything else is asked of it, then or later, so that
    a library that comes to use more of it works all the same. Nobody else ever sees it, and what
    has been loaded already stays what it is.
    """
    try:
        with ExitStack() as stack:
            for other, attributes in instead.items():
                if other not in sys.modules:
                    stack.enter_context(_stand_in(other, attributes))
            importlib.import_module(name)
    except ImportError:  # it wants a module below one of them
        importlib.import_module(name)


@contextmanager
def _stand_in(name: str, attributes: Mapping[str, object]) -> Iterator[None]:
    module = ModuleType(name)

    def find(attribute: str) -> Any:
        if attribute.startswith("__"):  # the import itself looks for __path__
            raise AttributeError(attribute)
        leave()
        return getattr(importlib.import_module(name), attribute)

    def leave() -> None:
        if sys.modules.get(name) is module:
            del sys.modules[name]

    vars(module).update(attributes, __getattr__=find)  # PEP 562
    sys.modules[name] = module
    try:
        yield
    finally:
        leave()

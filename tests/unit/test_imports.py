"""Libraries that are loaded with a stand-in for what they import and are not asked for here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from overlayd.host.imports import load

HEAVY = "test_imports_heavy"
LIBRARY = "test_imports_library"


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is to be left out; none of the modules is there after the test."""
    package = tmp_path / HEAVY
    package.mkdir()
    (package / "__init__.py").write_text("GIVEN = 'real'\nOTHER = 'real, too'\n")
    (package / "below.py").write_text("NAME = 'below'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in (HEAVY, f"{HEAVY}.below", LIBRARY):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.delitem(sys.modules, name)


def loaded(tmp_path: Path, text: str) -> ModuleType:
    """A library of that TEXT, loaded with a stand-in for what it imports."""
    (tmp_path / f"{LIBRARY}.py").write_text(text)
    load(LIBRARY, instead={HEAVY: {"GIVEN": "instead"}})
    return sys.modules[LIBRARY]


@pytest.mark.parametrize(
    "text",
    [
        f"import {HEAVY} as heavy",
        f"import {HEAVY} as heavy\ndef use(): return heavy.OTHER",
        f"from {HEAVY} import GIVEN",
    ],
)
def test_what_is_not_asked_for_is_not_loaded(tmp_path: Path, text: str) -> None:
    loaded(tmp_path, text)
    assert HEAVY not in sys.modules


def test_what_is_given_comes_from_the_stand_in(tmp_path: Path) -> None:
    assert loaded(tmp_path, f"from {HEAVY} import GIVEN").GIVEN == "instead"


def test_the_rest_is_there_as_soon_as_it_is_asked_for(tmp_path: Path) -> None:
    library = loaded(tmp_path, f"import {HEAVY} as heavy\ndef use(): return heavy.OTHER")
    assert library.use() == "real, too"
    assert sys.modules[HEAVY].GIVEN == "real"


@pytest.mark.parametrize("text", ["from {} import OTHER", "from {}.below import NAME as OTHER"])
def test_a_library_that_wants_more_at_once(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, text.format(HEAVY)).OTHER in ("real, too", "below")
    assert sys.modules[HEAVY].GIVEN == "real"


def test_what_is_there_already_stays(tmp_path: Path) -> None:
    __import__(HEAVY)
    assert loaded(tmp_path, f"from {HEAVY} import GIVEN").GIVEN == "real"


def test_what_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        loaded(tmp_path, "import no_such_module")
    assert HEAVY not in sys.modules

"""The house and its walls, read from the source with `ast`: who imports whom, who touches files.

`cli → service → kernel → core → {table, host} → errors`, never upward.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import overlayd

PACKAGE = Path(overlayd.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

MAY_IMPORT = {
    "cli": {"cli", "service", "kernel", "core", "table", "host", "errors", "overlayd"},
    "service": {"service", "kernel", "core", "table", "host", "errors", "overlayd"},
    "kernel": {"kernel", "core", "table", "host", "errors"},
    "core": {"core", "table", "host", "errors"},
    "host": {"host", "table", "errors"},  # sources are opened for the table's preopens
    "table": {"table", "errors"},
    "errors": set[str](),
    "overlayd": set[str](),
    "__main__": {"cli"},
}

KNOWS_FUSE = {"kernel", "service"}
TOUCHES_NO_FILES = {"core", "table", "kernel", "errors"}

PURE_OS = {
    *("fsencode", "fsdecode", "strerror", "statvfs_result"),
    *("path.join", "path.dirname", "path.abspath"),
}
"""What a room without file access may use of `os`, besides constants."""

FILE_MODULES = {"pathlib", "shutil", "tempfile", "glob", "fcntl", "subprocess", "ctypes", "io"}
ONE_FILE_EACH = {
    "table/config.py": {"pathlib", "Path"},
    "kernel/wire.py": {"os.environ", "os.environ.get"},
}
"""The configuration file is read where it is understood, and the switch where it switches."""

FUNCTION_LINES = 45
MODULE_LINES = 500


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def room_of(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return "overlayd" if first == "__init__.py" else first.removesuffix(".py")


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module imported anywhere in TREE, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            if node.module == "overlayd":
                yield from (f"overlayd.{alias.name}" for alias in node.names)
            else:
                yield node.module


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def file_access(tree: ast.AST) -> Iterator[str]:
    """What in TREE reaches the file system, or could."""
    for module in imports(tree):
        if module.partition(".")[0] in FILE_MODULES:
            yield module.partition(".")[0]
        if module.startswith("os."):
            yield module
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (f"os.{alias.name}" for alias in node.names)
        if isinstance(node, ast.Name) and node.id in ("open", "Path", "exec", "eval"):
            yield node.id
        if isinstance(node, ast.Attribute) and dotted(node).startswith("os."):
            used = dotted(node).removeprefix("os.")
            if used != "path" and not used.isupper() and used not in PURE_OS:
                yield f"os.{used}"


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
        assert first.end_lineno is not None
        lines -= first.end_lineno - first.lineno + 1
    return lines


every_module = pytest.mark.parametrize("path", MODULES, ids=name_of)


def test_every_room_is_known() -> None:
    assert {room_of(path) for path in MODULES} == set(MAY_IMPORT)


@every_module
def test_imports_go_down_never_up(path: Path) -> None:
    ours = [module for module in imports(tree_of(path)) if module.startswith("overlayd")]
    rooms = {module.split(".")[1] for module in ours}
    rooms = {room if room in MAY_IMPORT else "overlayd" for room in rooms}
    assert rooms <= MAY_IMPORT[room_of(path)]


@every_module
def test_only_kernel_and_service_know_fuse(path: Path) -> None:
    foreign = {module.partition(".")[0] for module in imports(tree_of(path))}
    if room_of(path) not in KNOWS_FUSE:
        assert not foreign & {"pyfuse3", "trio"}


@every_module
def test_only_host_and_service_touch_files(path: Path) -> None:
    if room_of(path) in TOUCHES_NO_FILES:
        used = set(file_access(tree_of(path))) - ONE_FILE_EACH.get(name_of(path), set())
        assert not used


@every_module
def test_only_the_command_line_prints_and_exits(path: Path) -> None:
    if room_of(path) in ("cli", "__main__"):
        return
    used = {dotted(node) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Name)}
    used |= {dotted(node) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    assert not used & {"print", "sys.exit", "exit", "quit", "SystemExit"}


@every_module
def test_budgets(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MODULE_LINES
    for function in functions(tree_of(path)):
        assert body_lines(function) <= FUNCTION_LINES, function.name


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.open('x', os.O_RDONLY)",
        "import os\nos.path.exists('x')",
        "import os\nos.stat('x')",
        "from os import stat",
        "from os.path import exists",
        "import os.path",
        "open('x')",
        "from pathlib import Path",
        "def f():\n    import shutil",
    ],
)
def test_the_wall_notices(source: str) -> None:
    assert list(file_access(ast.parse(source)))


def test_the_wall_lets_constants_through() -> None:
    assert not list(file_access(ast.parse("import os\nos.strerror(os.O_RDONLY)")))


def test_test_files_have_names_of_their_own() -> None:
    """pytest imports them by that alone, whatever directory they lie in."""
    names = [path.name for path in Path(__file__).parents[1].rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))

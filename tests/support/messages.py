"""Every error and warning that overlayd can say, read from its source with `ast`.

A message is the literal words of one string, with the values in it left out. Taken are the strings
that are raised as an error for a person, warned of or logged as a problem, and those of the
functions and variables that such a string quotes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import overlayd

PACKAGE = Path(overlayd.__file__).parent

_SAID = {"warn", "warning", "error", "exception", "critical", "_complain", "complain", "_report"}
_QUOTED_FROM = {"table", "host", "service", "cli"}
"""Rooms whose ValueErrors and own OSErrors become part of a message; the core's are bugs."""

_ELSEWHERE = {
    "find_overlaps", "_overlap", "conflict", "advice", "sentence",  # what check warns of
    "unhealthy", "unseen_mount", "ignored_mode", "words",
}  # fmt: skip
"""Functions that compose what another module says."""


class Message(NamedTuple):
    """The literal words of one string, in order, and where it stands."""

    where: str
    words: tuple[str, ...]


def messages() -> list[Message]:
    """Every message in the package."""
    return [message for path in sorted(PACKAGE.rglob("*.py")) for message in _in_module(path)]


@cache
def _error_classes() -> set[str]:
    """The names of OverlaydError and of everything derived from it."""
    bases = {
        node.name: {_name(base) for base in node.bases}
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    }
    found = {"OverlaydError"}
    while more := {name for name, above in bases.items() if above & found} - found:
        found |= more
    return found


def _in_module(path: Path) -> Iterator[Message]:
    tree = ast.parse(path.read_text())
    room = path.relative_to(PACKAGE).parts[0]
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    wanted: list[ast.AST] = [node for name, node in functions.items() if name in _ELSEWHERE]
    for scope in [tree, *functions.values()]:
        for call in _own_calls(scope):
            if _speaks(call, room):
                wanted += call.args
                wanted += _quoted(call, scope, functions)
        wanted += _raised(scope) if room in _QUOTED_FROM else ()
    seen: set[int] = set()
    for node in wanted:
        for string in _strings(node):
            if id(string) not in seen:
                seen.add(id(string))
                words = tuple(part for part in _literals(string) if _is_telling(part))
                if words:
                    yield Message(f"{path.relative_to(PACKAGE)}:{string.lineno}", words)


def _raised(scope: ast.AST) -> Iterator[ast.AST]:
    """The arguments of whatever is raised: `raise _unusable(entry, "is not a directory")`."""
    for node in ast.walk(scope):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from node.exc.args


def _own_calls(scope: ast.AST) -> Iterator[ast.Call]:
    """The calls in *scope*, without those of functions inside it."""
    pending = list(ast.iter_child_nodes(scope))
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Call):
            yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or isinstance(
            scope, ast.Module
        ):
            pending += ast.iter_child_nodes(node)


def _speaks(call: ast.Call, room: str) -> bool:
    name = _name(call.func)
    if name in _error_classes():
        return True
    if name in ("ValueError", "OSError"):
        return room in _QUOTED_FROM
    if isinstance(call.func, ast.Attribute):
        return name in _SAID and _name(call.func.value) in ("log", "logger")
    return name in _SAID


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _quoted(
    call: ast.Call, scope: ast.AST, functions: dict[str, ast.FunctionDef]
) -> Iterator[ast.AST]:
    """What the values in a message are made of, as far as this module makes them."""
    names = {node.id for node in ast.walk(call) if isinstance(node, ast.Name)}
    for name in sorted(names & functions.keys()):
        yield functions[name]
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if names & {_name(target) for target in targets}:
                yield node.value


def _strings(node: ast.AST) -> Iterator[ast.JoinedStr | ast.Constant]:
    """The outermost strings below *node*, docstrings left out."""
    if isinstance(node, ast.JoinedStr):
        yield node
        for value in node.values:
            if isinstance(value, ast.FormattedValue):
                yield from _strings(value.value)
        return
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node
        return
    children = list(ast.iter_child_nodes(node))
    if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None:
        children = [child for child in children if child is not node.body[0]]
    for child in children:
        yield from _strings(child)


def _literals(string: ast.JoinedStr | ast.Constant) -> Iterator[str]:
    parts = string.values if isinstance(string, ast.JoinedStr) else [string]
    for part in parts:
        if isinstance(part, ast.Constant):
            for piece in re.split(r"%[sdr]", str(part.value)):
                yield " ".join(piece.split())


def _is_telling(words: str) -> bool:
    """Whether somebody could look for these words: more than one, or a long one."""
    letters = "".join(c for c in words if c.isalpha() or c == " ").split()
    return len(letters) > 1

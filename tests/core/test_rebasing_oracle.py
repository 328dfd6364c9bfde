"""Rebased links against a real chroot: same object where there is one, and never a step outside.

The follower stands for a host process that follows the namespace's links knowing nothing of its
root: it takes each answer of readlink at its word, and fails the test when one leads out.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.chroot_oracle import resolve_in_chroot
from support.core_guest import Guest

MAX_LINKS = 40

names = st.sampled_from(["a", "b", "c"])
steps = st.one_of(names, st.just(".."), st.just(".."), st.sampled_from([".", "m"]))
targets = st.builds(
    lambda root, inner, slash: root + "/".join(inner) + slash,
    st.sampled_from(["", "", "/", "../../../"]),
    st.lists(steps, min_size=1, max_size=6),
    st.sampled_from(["", "", "", "/", "/."]),
)
entries = st.dictionaries(
    st.lists(names, min_size=1, max_size=3).map("/".join),
    st.one_of(st.none(), st.none(), st.just("file"), targets),
    min_size=3,
    max_size=10,
)


class Escape(Exception):
    """An answer of readlink leads out of the namespace."""


def grow(base: Path, tree: dict[str, str | None]) -> None:
    """Make TREE in BASE: None is a directory, "file" a file, anything else a link's target.

    What lies below a file or link is left out: nothing may be made through a link.
    """
    base.mkdir()
    for name, what in sorted(tree.items()):
        path = base / name
        above = [base / parent for parent in list(Path(name).parents)[:-1]]
        if os.path.lexists(path) or any(p.is_symlink() or p.is_file() for p in above):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if what is None:
            path.mkdir()
        elif what == "file":
            path.write_text(name)
        else:
            path.symlink_to(what)


class Follower:
    """Resolves paths as the host's kernel would: `..` by parent, links by what readlink says."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def resolve(self, path: str) -> str | int:
        """The path of the object that PATH leads to, or an errno."""
        try:
            return _text(self._walk(path))
        except OSError as error:
            return error.errno or -1

    def _walk(self, path: str) -> list[str]:
        at: list[str] = []
        pending = self._parts(path)
        links = 0
        while pending:
            step = pending.pop()
            kind = stat.S_IFMT(self._guest.stat(_text(at)).stat.mode)
            if kind != stat.S_IFDIR:
                raise NotADirectoryError(errno.ENOTDIR, step)
            if step == "..":
                if not at:
                    raise Escape(path)
                at.pop()
            elif step != ".":
                at.append(step)
                attrs = self._guest.stat(_text(at))
                if stat.S_ISLNK(attrs.stat.mode):
                    links += 1
                    if links > MAX_LINKS:
                        raise OSError(errno.ELOOP, step)
                    answer = self._guest.readlink(_text(at)).decode()
                    assert attrs.size == len(answer)
                    if answer.startswith("/"):
                        raise Escape(answer)
                    at.pop()
                    pending.extend(self._parts(answer))
        return at

    def _parts(self, text: str) -> list[str]:
        """Steps of TEXT, the last first; a trailing slash asks for a directory, as `.` does."""
        parts = [part for part in text.split("/") if part]
        return list(reversed(parts + ["."] if text.endswith("/") else parts))


def _text(path: list[str]) -> str:
    return "/" + "/".join(path)


@contextmanager
def two_trees(
    base: dict[str, str | None], mount: dict[str, str | None]
) -> Iterator[tuple[Guest, Path]]:
    """BASE at / and MOUNT at /b/m: the namespace, and a plain copy of what it is to look like."""
    work = Path(tempfile.mkdtemp(prefix="overlayd-oracle-"))
    try:
        grow(work / "base", {**base, "b": None, "b/x": None})
        grow(work / "mount", mount)
        shutil.copytree(work / "base", work / "copy", symlinks=True)
        shutil.rmtree(work / "copy/b/m", ignore_errors=True)
        shutil.copytree(work / "mount", work / "copy/b/m", symlinks=True)
        yield Guest(f"{work}/base::/", f"{work}/mount::/b/m"), work / "copy"
    finally:
        shutil.rmtree(work)


def links_in(tree: Path) -> list[str]:
    found = [path for path in tree.rglob("*") if path.is_symlink()]
    return sorted("/" + str(path.relative_to(tree)) for path in found)


@given(base=entries, mount=entries)
@settings(max_examples=40)
def test_links_lead_where_they_lead_in_a_chroot(
    base: dict[str, str | None], mount: dict[str, str | None]
) -> None:
    with two_trees(base, mount) as (guest, copy):
        follower = Follower(guest)
        links = links_in(copy)
        for link, expected in zip(links, resolve_in_chroot(copy, links), strict=True):
            # Escape is no OSError: it ends the test, whatever the oracle says.
            assert follower.resolve(link) == expected, link


@given(base=entries, mount=entries, tails=st.lists(targets, min_size=1, max_size=4))
@settings(max_examples=40)
def test_paths_through_links_do_too(
    base: dict[str, str | None], mount: dict[str, str | None], tails: list[str]
) -> None:
    """A new link in each directory, as a guest would make it to find a way out."""
    with two_trees(base, mount) as (guest, copy):
        made = []
        for directory in ("/", "/b", "/b/m"):
            for index, target in enumerate(tails):
                path = f"{directory.rstrip('/')}/new{index}"
                guest.symlink(target, path)
                (copy / path[1:]).symlink_to(target)
                made.append(path)
        follower = Follower(guest)
        for link, expected in zip(made, resolve_in_chroot(copy, made), strict=True):
            assert follower.resolve(link) == expected, link


@pytest.mark.parametrize(
    "target", ["/../x", "../../../../x", "s/../../x", "/s/../x", "b/m/../../../x"]
)
def test_the_follower_would_notice_an_escape(tmp_path: Path, target: str) -> None:
    """The same links, as stored: each leads out."""
    grow(tmp_path / "base", {"s": "..", "l": target, "b/m": None})
    follower = Follower(Guest(f"{tmp_path}/base::/", symlinks="verbatim"))
    with pytest.raises(Escape):
        follower.resolve("/l")

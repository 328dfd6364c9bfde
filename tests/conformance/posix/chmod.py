"""chmod(2): modes, who may set them, set-id and sticky bits, times."""

from __future__ import annotations

import errno
import os

from conformance.case import Case, behaviour, mode_of, opened, user, write
from conformance.posix.support import ALICE, BOB, CAROL, MAKERS, USERS, give, times, untouched


@behaviour("users", "chmod")
def chmod_of_every_kind(case: Case) -> None:
    for kind, make in MAKERS.items():
        if kind == "symlink":
            continue
        make(kind)
        for mode in (0o111, 0o7777, 0o4711, 0o2710, 0o1700, 0):
            with times(case, {kind: "c", ".": ""}):
                os.chmod(kind, mode)
            case.same(mode_of(kind), mode, f"the mode of the {kind}")


@behaviour("users", "chmod")
def chmod_follows_and_spares_the_link(case: Case) -> None:
    write("f")
    os.symlink("f", "l")
    with times(case, {"f": "c", "l": "", ".": ""}):
        os.chmod("l", 0o600)
    os.symlink("missing", "dangling")
    case.refused(errno.ENOENT, os.chmod, "dangling", 0o600)


@behaviour("users", "chmod")
def chmod_needs_the_owner(case: Case) -> None:
    write("f")
    os.mkdir("d")
    for path in ("f", "d"):
        give(path, ALICE, 0o777)
        for caller in (BOB, CAROL):
            with untouched(case, path), user(*caller):
                case.refused(errno.EPERM, os.chmod, path, 0o700)
                case.refused(errno.EPERM, os.chmod, path, 0o777)
        with user(*ALICE), times(case, {path: "c"}):
            case.done(os.chmod, path, 0o700)
        case.same(mode_of(path), 0o700, "the mode")


@behaviour("users", "chmod")
def chmod_sets_sticky_on_whatever_is_owned(case: Case) -> None:
    """Linux, unlike others, lets an owner set the sticky bit on a file."""
    for path in ("file", "directory"):
        MAKERS[path](path)
        give(path, ALICE)
        with user(*ALICE):
            os.chmod(path, 0o1755)
        case.same(mode_of(path), 0o1755, f"the mode of the {path}")


@behaviour("users", "chmod")
def chmod_clears_set_gid_for_who_is_not_in_the_group(case: Case) -> None:
    for path in ("file", "directory", "fifo"):
        MAKERS[path](path)
        give(path, (ALICE[0], BOB[1]))
        with user(*ALICE):
            os.chmod(path, 0o6755)
        case.same(mode_of(path), 0o4755, f"the mode of the {path}, by an outsider")
        with user(*ALICE, (BOB[1],)):
            os.chmod(path, 0o6755)
        case.same(mode_of(path), 0o6755, f"the mode of the {path}, by a member")
        os.chmod(path, 0o2755)
        case.same(mode_of(path), 0o2755, f"the mode of the {path}, by root")


@behaviour("users", "chmod")
def chmod_by_handle(case: Case) -> None:
    write("f")
    give("f", ALICE, 0o644)
    with opened("f", os.O_RDONLY) as fd:
        for caller in (BOB, CAROL):
            with untouched(case, "f"), user(*caller):
                case.refused(errno.EPERM, os.fchmod, fd, 0o600)
        with user(*ALICE), times(case, {"f": "c"}):
            case.done(os.fchmod, fd, 0)
            case.done(os.fchmod, fd, 0o640)
        os.unlink("f")
        os.fchmod(fd, 0o600)
        case.same(os.fstat(fd).st_mode & 0o7777, 0o600, "the mode of what has no name")


@behaviour("users", "chmod")
def chmod_takes_effect_at_once(case: Case) -> None:
    write("f", b"x", 0o600)
    os.mkdir("d")
    write("d/f")
    for caller in USERS:
        for mode, number in ((0o644, 0), (0o600, errno.EACCES), (0o604, 0)):
            os.chmod("f", mode)
            with user(*caller):
                case.refused(number, lambda: os.close(os.open("f", os.O_RDONLY)))
        for mode, number in ((0o755, 0), (0o754, errno.EACCES), (0o711, 0)):
            os.chmod("d", mode)
            with user(*caller):
                case.refused(number, os.stat, "d/f")

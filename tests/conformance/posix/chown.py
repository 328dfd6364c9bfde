"""chown(2), lchown(2), fchown(2): who may, what becomes of set-id bits, times."""

from __future__ import annotations

import errno
import os
import time

from conformance.case import Case, behaviour, mode_of, opened, user, write
from conformance.posix.support import (
    ALICE,
    BOB,
    CAROL,
    MAKERS,
    SHARED_GROUP,
    TICK_SECONDS,
    give,
    owner_of,
    times,
    untouched,
)


@behaviour("users", "chown", "lchown")
def chown_of_every_kind(case: Case) -> None:
    for kind, make in MAKERS.items():
        make(kind)
        change = os.lchown if kind == "symlink" else os.chown
        with times(case, {kind: "c", ".": ""}):
            change(kind, 11, 12)
        case.same(owner_of(kind), (11, 12), f"the owner of the {kind}")
        change(kind, 13, -1)
        change(kind, -1, 14)
        case.same(owner_of(kind), (13, 14), f"the owner of the {kind}, one by one")
        change(kind, 2**32 - 2, 2**32 - 2)
        case.same(owner_of(kind), (2**32 - 2, 2**32 - 2), "the highest numbers")


@behaviour("users", "chown", "lchown")
def chown_follows_and_lchown_does_not(case: Case) -> None:
    write("f")
    os.symlink("f", "l")
    with times(case, {"f": "c", "l": "", ".": ""}):
        os.chown("l", 11, 12)
    with times(case, {"f": "", "l": "c", ".": ""}):
        os.lchown("l", 21, 22)
    case.same((owner_of("f"), owner_of("l")), ((11, 12), (21, 22)), "the owners")


@behaviour("users", "chown", "lchown")
def chown_refused(case: Case) -> None:
    for kind in ("file", "directory", "symlink", "fifo"):
        MAKERS[kind](kind)
        give(kind, ALICE)
        for caller in (BOB, CAROL):
            with untouched(case, kind), user(*caller, (SHARED_GROUP,)):
                case.refused(errno.EPERM, os.lchown, kind, *caller)
                case.refused(errno.EPERM, os.lchown, kind, -1, SHARED_GROUP)
                case.refused(errno.EPERM, os.lchown, kind, *ALICE)
        with untouched(case, kind), user(*ALICE, (SHARED_GROUP,)):
            case.refused(errno.EPERM, os.lchown, kind, BOB[0], -1)
            case.refused(errno.EPERM, os.lchown, kind, -1, BOB[1])
            case.refused(errno.EPERM, os.lchown, kind, BOB[0], SHARED_GROUP)
        case.same(owner_of(kind), ALICE, "the owner")


@behaviour("users", "chown", "lchown")
def chown_by_the_owner(case: Case) -> None:
    for kind in ("file", "directory", "symlink", "fifo"):
        MAKERS[kind](kind)
        give(kind, ALICE)
        with user(*ALICE, (SHARED_GROUP,)), times(case, {kind: "c", ".": ""}):
            case.done(os.lchown, kind, ALICE[0], SHARED_GROUP)
        case.same(owner_of(kind), (ALICE[0], SHARED_GROUP), "the owner")
        with user(*ALICE, (SHARED_GROUP,)):
            case.done(os.lchown, kind, -1, ALICE[1])
            case.done(os.lchown, kind, ALICE[0], -1)
        case.same(owner_of(kind), ALICE, "the owner again")


@behaviour("users", "chown")
def chown_clears_set_id_bits_of_files(case: Case) -> None:
    write("f")
    changes = ((11, 12), (ALICE[0], -1), (-1, SHARED_GROUP))
    for mode, left in ((0o6777, 0o777), (0o4711, 0o711), (0o2755, 0o755), (0o2745, 0o2745)):
        for change in changes:
            give("f", ALICE, mode)
            os.chown("f", *change)
            case.same(mode_of("f"), left, f"{mode:o} after chown{change} by root")
    for mode, left in ((0o6777, 0o777), (0o4711, 0o711), (0o2755, 0o755)):
        give("f", ALICE, mode)
        with user(*ALICE, (SHARED_GROUP,)):
            os.chown("f", -1, SHARED_GROUP)
        case.same(mode_of("f"), left, f"{mode:o} after chown by the owner")


@behaviour("users", "chown")
def chown_leaves_set_id_bits_of_directories(case: Case) -> None:
    os.mkdir("d")
    give("d", ALICE, 0o6755)
    os.chown("d", -1, SHARED_GROUP)
    case.same(mode_of("d"), 0o6755, "the mode after chown by root")
    with user(*ALICE, (SHARED_GROUP,)):
        os.chown("d", -1, ALICE[1])
    case.same(mode_of("d"), 0o6755, "the mode after chown by the owner")


@behaviour("users", "chown")
def chown_that_changes_nothing(case: Case) -> None:
    write("f")
    give("f", ALICE, 0o6755)
    with times(case, {"f": "c"}):
        os.chown("f", -1, -1)
    case.same((owner_of("f"), mode_of("f")), (ALICE, 0o755), "owner and mode")
    os.mkdir("d")
    give("d", ALICE, 0o6755)
    before = os.stat("d").st_ctime_ns
    time.sleep(TICK_SECONDS)
    os.chown("d", -1, -1)
    moved = "moves" if os.stat("d").st_ctime_ns > before else "stays"
    case.same(moved, "moves", "ctime of the directory")
    case.same((owner_of("d"), mode_of("d")), (ALICE, 0o6755), "owner and mode of the directory")


@behaviour("users", "chown")
def chown_by_handle(case: Case) -> None:
    write("f")
    give("f", ALICE, 0o6755)
    with opened("f") as fd:
        with user(*BOB), untouched(case, "f"):
            case.refused(errno.EPERM, os.fchown, fd, *BOB)
        with user(*ALICE, (SHARED_GROUP,)), times(case, {"f": "c"}):
            case.done(os.fchown, fd, -1, SHARED_GROUP)
        case.same((owner_of("f"), mode_of("f")), ((ALICE[0], SHARED_GROUP), 0o755), "the result")
        os.unlink("f")
        os.fchown(fd, *BOB)
        case.same(os.fstat(fd).st_uid, BOB[0], "the owner of what has no name")

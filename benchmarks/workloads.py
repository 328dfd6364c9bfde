"""Names, attributes, opens and listings, one kind of call at a time, by one client and by many.

*Cold* is what the kernel knows nothing of yet: each round has new mounts, and each workload a
directory of its own in them. *Warm* is the same once more, straight after.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import Planter, Row, Runner, Turn, Workload, Workshop, numbers_of

SIZE_OF_FILES = "100"
OWN, SHARED = "own", "shared"
COLD_BY_CLIENTS = ("stat", "open-read-close")
CHANGES = ("create", "rename", "unlink")


def files(name: str) -> Planter:
    """A planter of one directory of small files."""

    def plant(shop: Workshop, source: Path) -> None:
        (source / name).mkdir()
        shop.client("plant", source / name, shop.sizes.files, "-s", SIZE_OF_FILES)

    return plant


def tree(name: str, count: str, in_one: int | None = None) -> Planter:
    """A planter of a tree of as many files as the size COUNT says, IN_ONE of them per directory.

    Where IN_ONE is None, the size says how many directories of ten files there are.
    """

    def plant(shop: Workshop, source: Path) -> None:
        (source / name).mkdir()
        number = getattr(shop.sizes, count) * (1 if in_one else 10)
        shop.client("tree", source / name, number, "-d", str(in_one or 10))

    return plant


def cold_and_warm(
    operation: str, directory: str, cold: str, warm: str, size: str = "passes"
) -> Runner:
    """Something on each file: once, and then as often more as SIZE says."""

    def run(turn: Turn) -> dict[str, float]:
        count, passes = turn.sizes.files, str(getattr(turn.sizes, size))
        return {
            cold: turn.shop.client(operation, turn.at(directory), count),
            warm: turn.shop.client(operation, turn.at(directory), count, "-p", passes),
        }

    return run


def run_changes(turn: Turn) -> dict[str, float]:
    """Files created in an empty directory, renamed, and removed."""
    make_empty(turn.subject.source / "changes")
    client, directory, count = turn.shop.client, turn.at("changes"), turn.sizes.files
    return {operation: client(operation, directory, count) for operation in CHANGES}


def make_empty(directory: Path) -> None:
    """Take away what a turn that failed has left."""
    for entry in directory.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def run_large_list(turn: Turn) -> dict[str, float]:
    """One directory of many files, each with its attributes; per file."""
    client, directory, count = turn.shop.client, turn.at("large"), turn.sizes.large_list
    return {
        "list-large": client("walk", directory, count),
        "list-large-warm": client("walk", directory, count, "-p", "3"),
    }


def plant_large(shop: Workshop, source: Path) -> None:
    """One directory of many files."""
    (source / "large").mkdir()
    shop.client("plant", source / "large", shop.sizes.large_list)


def run_small_lists(turn: Turn) -> dict[str, float]:
    """Directories of ten files; per directory."""
    client, directory, count = turn.shop.client, turn.at("small"), turn.sizes.small_lists * 10
    return {
        "list-10": 10 * client("walk", directory, count),
        "list-10-warm": 10 * client("walk", directory, count, "-p", "3"),
    }


def run_walk(turn: Turn) -> dict[str, float]:
    """The whole of a large tree; per walk."""
    client, directory, count = turn.shop.client, turn.at("walk"), turn.sizes.walk
    return {
        "walk-cold": count * client("walk", directory, count),
        "walk-warm": count * client("walk", directory, count, "-p", "2"),
    }


def plant_clients(sharing: str) -> Planter:
    """A planter of files for each number of clients, in one directory or in one for each."""

    def plant(shop: Workshop, source: Path) -> None:
        for clients in numbers(shop.sizes.clients, sharing):
            for operation in COLD_BY_CLIENTS:
                place = source / f"clients-{sharing}" / f"{operation}-{clients}"
                place.mkdir(parents=True)
                each = shop.sizes.client_files // clients
                own = ["-o"] if sharing == OWN else []
                shop.client("plant", place, each, "-c", str(clients), "-s", SIZE_OF_FILES, *own)
            (source / f"clients-{sharing}" / f"changes-{clients}").mkdir()

    return plant


def run_clients(sharing: str) -> Runner:
    """A runner of several processes at once; the time per operation of all together."""

    def run(turn: Turn) -> dict[str, float]:
        values = {}
        for clients in numbers(turn.sizes.clients, sharing):
            top = turn.at(f"clients-{sharing}")
            make_empty(turn.subject.source / top.name / f"changes-{clients}")
            places = {name: top / f"{name}-{clients}" for name in COLD_BY_CLIENTS}
            places |= dict.fromkeys(CHANGES, top / f"changes-{clients}")
            each = turn.sizes.client_files // clients
            options = ["-c", str(clients), *(["-o"] if sharing == OWN else [])]
            for operation, place in places.items():
                value = turn.shop.client(operation, place, each, *options)
                values[client_row(sharing, clients, operation)] = value
        return values

    return run


def numbers(clients: Sequence[int], sharing: str) -> list[int]:
    """How many clients there are to be; in one directory some of the numbers will do."""
    return [number for number in clients if sharing == OWN or number in (2, 8)]


def client_row(sharing: str, clients: int, operation: str) -> str:
    """The name of a row of several clients."""
    kind = "clients" if sharing == OWN else "one-directory"
    return f"{kind}-{clients}-{operation}"


def client_rows(sharing: str) -> tuple[Row, ...]:
    """Rows for every number of clients that any size has."""
    where = "each in its own directory" if sharing == OWN else "in one directory"
    return tuple(
        Row(
            client_row(sharing, number, name),
            f"{name}, {number} client{'s' * (number > 1)}" + f", {where}" * (number > 1),
        )
        for number in numbers(numbers_of("clients"), sharing)
        for name in (*COLD_BY_CLIENTS, *CHANGES)
    )


def rows(*pairs: tuple[str, str], unit: str = "us") -> tuple[Row, ...]:
    """Rows of one unit."""
    return tuple(Row(name, title, unit) for name, title in pairs)


WORKLOADS = (
    Workload(
        "stat",
        rows(("stat-cold", "stat, cold"), ("stat-warm", "stat, warm")),
        cold_and_warm("stat", "stat", "stat-cold", "stat-warm"),
        files("stat"),
    ),
    Workload(
        "negative",
        rows(
            ("negative-cold", "stat of no file, cold"),
            ("negative-warm", "stat of no file, warm"),
        ),
        cold_and_warm("negative", "negative", "negative-cold", "negative-warm"),
        files("negative"),
    ),
    Workload(
        "open-read-close",
        rows(
            ("open-read-close", "open, read, close, cold"),
            ("open-read-close-warm", "open, read, close, warm"),
        ),
        cold_and_warm(
            "open-read-close", "open", "open-read-close", "open-read-close-warm", "open_passes"
        ),
        files("open"),
    ),
    Workload(
        "create",
        rows(("create", "create"), ("rename", "rename"), ("unlink", "unlink")),
        run_changes,
        lambda _, source: (source / "changes").mkdir(),
    ),
    Workload(
        "list-10",
        rows(
            ("list-10", "list 10 entries with attributes, cold"),
            ("list-10-warm", "list 10 entries with attributes, warm"),
        ),
        run_small_lists,
        tree("small", "small_lists"),
    ),
    Workload(
        "list-large",
        rows(
            ("list-large", "list {large_list:,} entries with attributes, cold, per entry"),
            ("list-large-warm", "list {large_list:,} entries with attributes, warm, per entry"),
        ),
        run_large_list,
        plant_large,
    ),
    Workload("clients", client_rows(OWN), run_clients(OWN), plant_clients(OWN)),
    Workload("one-directory", client_rows(SHARED), run_clients(SHARED), plant_clients(SHARED)),
    Workload(
        "walk",
        rows(
            ("walk-cold", "walk {walk:,} files, cold"),
            ("walk-warm", "walk {walk:,} files, warm"),
            unit="ms",
        ),
        run_walk,
        tree("walk", "walk", in_one=50),
    ),
)

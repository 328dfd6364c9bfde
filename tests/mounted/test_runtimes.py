"""Real WASI guests under real runtimes, with and without overlayd.

Each defect that overlayd exists for is shown twice: without it, so that this file documents the
defect and notices when a runtime mends it, and with it. The guests are tests/guests/*.c, run
under wasmtime 45.0.0 (open to RUSTSEC-2026-0188), the newest wasmtime, and node:wasi.

Answers are those of the probe guest, see the head of tests/guests/probe.c: "@r:lib/x" is
openat() relative to the handle r.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.mounting import mounted
from support.runtimes import (
    NODE,
    RUNTIMES,
    WASMTIME_NEWEST,
    WASMTIME_VULNERABLE,
    WASMTIMES,
    Runtime,
    probe,
)

every_runtime = pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name)
every_wasmtime = pytest.mark.parametrize("runtime", WASMTIMES, ids=lambda runtime: runtime.name)

# What wasmtime's guests are to see: EROFS would reach them as EIO.
WASI_ERRORS = ("--errors", "wasi")

APP = "ok the-app's-own-lib/x"
MOUNTED = "ok the-mounted-lib/x"


@dataclass(frozen=True)
class Tree:
    """The sources on the host: `app` has a directory `lib`, and `lib` is to cover it."""

    root: Path

    @property
    def overlapping(self) -> dict[str, Path]:
        """Wasmtime issue 13544: guest path to host directory."""
        return {"/": self.root / "app", "/lib": self.root / "lib"}

    def read(self, path: str) -> str:
        """The content of a host file."""
        return (self.root / path).read_text()

    def names(self, path: str) -> set[str]:
        """The names in a host directory."""
        return {entry.name for entry in (self.root / path).iterdir()}


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    root = tmp_path / "host"
    contents = {
        "secret": "a-file-outside-every-preopen",
        "app/main": "main",
        "app/lib/x": "the-app's-own-lib/x",
        "app/lib/only-in-app": "masked",
        "lib/x": "the-mounted-lib/x",
        "config/settings": "as-configured",
        "area/scratch": "scratch",
    }
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "app/deep/er").mkdir(parents=True)
    return Tree(root)


def apart(preopens: Mapping[str, Path]) -> list[str]:
    """The options for a runtime that is given the preopens themselves."""
    return [f"--dir={host}::{guest}" for guest, host in preopens.items()]


def merged(preopens: Mapping[str, Path]) -> list[str]:
    """The entries for overlayd."""
    return [f"{host}::{guest}" for guest, host in preopens.items()]


def behind(target: Path) -> list[str]:
    """The one option for a runtime that is given overlayd's target."""
    return [f"--dir={target}::/"]


# --- wasmtime issue 13544: one path, two answers ------------------------------------------------

HANDLES = {"open r / rd": "ok", "open l /lib rd": "ok", "open rl @r:lib rd": "ok"}

WITHOUT_OVERLAYD = {
    "read /lib/x": MOUNTED,
    "read @l:x": MOUNTED,
    "read @r:lib/x": APP,
    "read @rl:x": APP,
    "read /deep/../lib/x": APP,
    "read @r:deep/../lib/x": APP,
    "read /rel": APP,
    "read /only": "ok masked",
}
"""Every way of reaching one path, as it is answered when the preopens are handed over apart."""

MASKED = ["read /lib/only-in-app", "read @r:lib/only-in-app", "read @rl:only-in-app", "read /only"]


def add_links_into_lib(tree: Tree) -> None:
    (tree.root / "app/rel").symlink_to("lib/x")
    (tree.root / "app/only").symlink_to("lib/only-in-app")


@every_runtime
def test_without_overlayd_one_path_has_two_answers(runtime: Runtime, tree: Tree) -> None:
    add_links_into_lib(tree)
    expected = HANDLES | WITHOUT_OVERLAYD
    assert probe(runtime, apart(tree.overlapping), expected) == expected


@pytest.mark.usefixtures("data_way")
@every_runtime
def test_every_way_of_reaching_a_path_gives_one_object(
    runtime: Runtime, tree: Tree, tmp_path: Path
) -> None:
    add_links_into_lib(tree)
    ways = ["/lib/x", "@r:lib/x", "@l:x", "@rl:x", "/deep/../lib/x", "@r:deep/../lib/x", "/rel"]
    ways += ["/lib/../lib/x", "/lib/./x", "@r:lib/../lib/x"]
    reads = {f"read {way}": MOUNTED for way in ways}
    stats = [f"stat {way}" for way in ways]
    with mounted(tmp_path, *merged(tree.overlapping)) as target:
        answers = probe(runtime, behind(target), [*HANDLES, *reads, *stats])
    assert {way: answers[way] for way in reads} == reads
    objects = {answers[way] for way in stats}
    assert len(objects) == 1
    assert objects.pop().startswith("ok ino=")


@every_runtime
def test_what_a_mount_point_covers_cannot_be_reached(
    runtime: Runtime, tree: Tree, tmp_path: Path
) -> None:
    add_links_into_lib(tree)
    with mounted(tmp_path, *merged(tree.overlapping)) as target:
        answers = probe(runtime, behind(target), [*HANDLES, *MASKED])
    assert answers == HANDLES | dict.fromkeys(MASKED, "error ENOENT")


@pytest.mark.usefixtures("data_way")
@every_runtime
def test_what_is_written_one_way_is_read_every_other_way(
    runtime: Runtime, tree: Tree, tmp_path: Path
) -> None:
    expected = HANDLES | {
        "open f /lib/x +": "ok",
        "overwrite /deep/../lib/x THE": "ok",
        "read @f": "ok THE-mounted-lib/x",
        "append @l:x !": "ok",
        "read /lib/x": "ok THE-mounted-lib/x!",
        "write @f the": "ok",
        "read @rl:x": "ok the-mounted-lib/x!",
        "write @r:lib/new new": "ok",
        "rename /lib/new /lib/newer": "ok",
        "read @rl:newer": "ok new",
        "read @l:new": "error ENOENT",
        "unlink @r:lib/newer": "ok",
        "read /lib/newer": "error ENOENT",
    }
    with mounted(tmp_path, *merged(tree.overlapping)) as target:
        assert probe(runtime, behind(target), expected) == expected
    assert tree.read("lib/x") == "the-mounted-lib/x!"
    assert tree.read("app/lib/x") == "the-app's-own-lib/x"


@every_runtime
def test_a_mount_point_cannot_be_removed_or_replaced(
    runtime: Runtime, tree: Tree, tmp_path: Path
) -> None:
    expected = {
        "rmdir /lib": "error EBUSY",
        "rename /lib /moved": "error EBUSY",
        "rename /deep/er /lib": "error EBUSY",
        "mkdir /lib": "error EEXIST",
        "read /lib/x": MOUNTED,
    }
    with mounted(tmp_path, *merged(tree.overlapping)) as target:
        assert probe(runtime, behind(target), expected) == expected


# --- wasmtime issue 6396, wasi-libc issue 414: listings -----------------------------------------


def spread(tree: Tree) -> dict[str, Path]:
    """Preopens at places that no source has, one of them two levels below."""
    places = {"/config": tree.root / "config", "/srv/area": tree.root / "area"}
    return tree.overlapping | places


def listed(answer: str) -> Counter[str]:
    """The entries of a listing and how often each came, without "." and ".."."""
    status, *entries = answer.split(" ")
    assert status == "ok"
    # node:wasi leaves "." and ".." out whatever the host lists.
    return Counter(entry for entry in entries if entry not in {".:dir", "..:dir"})


@every_runtime
def test_without_overlayd_listings_lack_the_preopens(runtime: Runtime, tree: Tree) -> None:
    commands = ["list /", "list /lib", "open r / rd", "list @r:lib", "list /srv"]
    answers = probe(runtime, apart(spread(tree)), commands)
    assert listed(answers["list /"]) == Counter(["main:file", "lib:dir", "deep:dir"])
    assert listed(answers["list /lib"]) == Counter(["x:file"])
    assert listed(answers["list @r:lib"]) == Counter(["x:file", "only-in-app:file"])
    assert answers["list /srv"] == "error ENOENT"


@every_runtime
def test_listings_are_complete(runtime: Runtime, tree: Tree, tmp_path: Path) -> None:
    handles = ["open r / rd", "open s @r:srv rd"]
    commands = ["list /", "list @r", "list /lib", "list @r:lib", "list /srv", "list @s"]
    expected = {
        "list /": ["main:file", "lib:dir", "deep:dir", "config:dir", "srv:dir", "motd:file"],
        "list /lib": ["x:file"],
        "list /srv": ["area:dir"],
    }
    expected["list @r"] = expected["list /"]
    expected["list @r:lib"] = expected["list /lib"]
    expected["list @s"] = expected["list /srv"]
    entries = [*merged(spread(tree)), f"{tree.root}/secret::/motd::ro"]
    with mounted(tmp_path, *entries) as target:
        answers = probe(runtime, behind(target), [*handles, *commands])
    assert {way: listed(answers[way]) for way in commands} == {
        way: Counter(names) for way, names in expected.items()
    }


@every_wasmtime
def test_listings_have_dot_and_dot_dot(runtime: Runtime, tree: Tree, tmp_path: Path) -> None:
    places = ["list /", "list /lib", "list /srv", "list /srv/area", "list /deep"]
    with mounted(tmp_path, *merged(spread(tree))) as target:
        answers = probe(runtime, behind(target), places)
    for place, answer in answers.items():
        entries = Counter(answer.split())
        assert (entries[".:dir"], entries["..:dir"]) == (1, 1), place


@every_runtime
def test_a_long_listing_has_every_entry_once(runtime: Runtime, tree: Tree, tmp_path: Path) -> None:
    names = [f"entry-{number:04}" for number in range(1500)]
    for name in names:
        (tree.root / "app" / name).touch()
    with mounted(tmp_path, *merged(spread(tree))) as target:
        answer = probe(runtime, behind(target), ["list /"])["list /"]
    ours = ["main:file", "lib:dir", "deep:dir", "config:dir", "srv:dir"]
    assert listed(answer) == Counter([*ours, *(f"{name}:file" for name in names)])


# --- `..` ---------------------------------------------------------------------------------------


@every_wasmtime
def test_without_overlayd_dot_dot_stops_at_each_preopen(runtime: Runtime, tree: Tree) -> None:
    expected = {"read /lib/../main": "error EPERM", "read /lib/../lib/x": "error EPERM"}
    assert probe(runtime, apart(tree.overlapping), expected) == expected


@every_runtime
def test_dot_dot_crosses_mount_points_both_ways(
    runtime: Runtime, tree: Tree, tmp_path: Path
) -> None:
    # A handle itself does not lead above its directory in any WASI runtime, so every path here
    # starts at the root.
    expected = {
        "open r / rd": "ok",
        "read /lib/../main": "ok main",
        "read @r:lib/../main": "ok main",
        "read /lib/../config/../lib/x": MOUNTED,
        "read @r:srv/area/../../lib/x": MOUNTED,
        "read /srv/area/../area/scratch": "ok scratch",
        "read /config/../srv/area/scratch": "ok scratch",
        "read /lib/../lib/only-in-app": "error ENOENT",
    }
    with mounted(tmp_path, *merged(spread(tree))) as target:
        assert probe(runtime, behind(target), expected) == expected


# --- symlinks -----------------------------------------------------------------------------------


def add_symlinks(tree: Tree) -> None:
    links = {
        "app/absolute": "/lib/x",
        "app/absolute-dir": "/lib",
        "app/deep/er/dotted": "../../lib/x",
        "app/deep/er/too-dotted": "../../../../../lib/x",
        "app/deep/chain": "er/dotted",
        "lib/to-app": "../main",
        "lib/to-config": "/config/settings",
        "config/out": f"{tree.root}/secret",
        "config/out-dotted": "../../../../../../../../../../../../../etc/passwd",
    }
    for name, text in links.items():
        (tree.root / name).symlink_to(text)


LINKS = {
    "read /absolute": MOUNTED,
    "read /absolute-dir/x": MOUNTED,
    "read /deep/er/dotted": MOUNTED,
    "read /deep/er/too-dotted": MOUNTED,
    "read /deep/chain": MOUNTED,
    "read @r:absolute": MOUNTED,
    "read @r:deep/er/too-dotted": MOUNTED,
    "read /lib/to-app": "ok main",
    "read /lib/to-config": "ok as-configured",
    "read /config/out": "error ENOENT",
    "read /config/out-dotted": "error ENOENT",
}

BEYOND_NODE_18 = {"read /deep/chain", "read @r:deep/er/too-dotted"}
"""A link to a link, and a link through a handle: node 18 fails at them on any host directory."""


@every_wasmtime
def test_without_overlayd_links_between_preopens_are_refused(runtime: Runtime, tree: Tree) -> None:
    add_symlinks(tree)
    expected = dict.fromkeys(LINKS, "error EPERM")
    # Within one preopen a link works, and finds what the mounted directory should cover.
    expected |= dict.fromkeys(["read /deep/er/dotted", "read /deep/chain"], APP)
    answers = probe(runtime, apart(spread(tree)), ["open r / rd", *expected])
    assert answers == {"open r / rd": "ok"} | expected


@every_runtime
def test_links_resolve_inside_the_namespace(runtime: Runtime, tree: Tree, tmp_path: Path) -> None:
    add_symlinks(tree)
    beyond = BEYOND_NODE_18 if runtime is NODE else set()
    expected = {way: answer for way, answer in LINKS.items() if way not in beyond}
    with mounted(tmp_path, *merged(spread(tree))) as target:
        answers = probe(runtime, behind(target), ["open r / rd", *expected])
    assert answers == {"open r / rd": "ok"} | expected


@every_runtime
def test_readlink_gives_what_resolves_and_stat_its_length(
    runtime: Runtime, tree: Tree, tmp_path: Path
) -> None:
    add_symlinks(tree)
    expected = {
        "/absolute": "lib/x",
        "/deep/er/dotted": "../../lib/x",
        "/deep/er/too-dotted": "../../lib/x",
        "/deep/chain": "er/dotted",
        "/lib/to-app": "../main",
        "/lib/to-config": "../config/settings",
    }
    commands = [f"{verb} {link}" for link in expected for verb in ("readlink", "lstat")]
    with mounted(tmp_path, *merged(spread(tree))) as target:
        answers = probe(runtime, behind(target), commands)
    for link, text in expected.items():
        assert answers[f"readlink {link}"] == f"ok {text}"
        assert f" size={len(text)} type=link " in answers[f"lstat {link}"]


@every_runtime
def test_links_made_and_moved_by_the_guest(runtime: Runtime, tree: Tree, tmp_path: Path) -> None:
    expected = {
        "symlink ../../lib/x /deep/er/made": "ok",
        "read /deep/er/made": MOUNTED,
        "readlink /deep/er/made": "ok ../../lib/x",
        "rename /deep/er/made /made": "ok",  # two levels up, where its target would lead out
        "read /made": MOUNTED,
        "symlink ../main /lib/made": "ok",
        "read /lib/made": "ok main",
        "rename /lib/made /lib/renamed": "ok",
        "unlink /lib/renamed": "ok",
        "read /main": "ok main",
    }
    with mounted(tmp_path, *merged(tree.overlapping)) as target:
        assert probe(runtime, behind(target), expected) == expected
    assert (tree.root / "app/made").readlink() == Path("../../lib/x")


ESCAPE = {
    "symlink .. /up": "ok",
    "symlink ../../.. /deep/er/up": "ok",
    "read /up/secret": "ok a-file-outside-every-preopen",
    "read /deep/er/up/secret": "ok a-file-outside-every-preopen",
    "write /up/planted by-the-guest": "ok",
}


def test_without_overlayd_a_guest_leaves_node_by_a_link(tree: Tree) -> None:
    assert probe(NODE, apart(tree.overlapping), ESCAPE) == ESCAPE
    assert tree.read("planted") == "by-the-guest"


@pytest.mark.usefixtures("data_way")
@every_runtime
def test_a_guest_cannot_leave_by_a_link(runtime: Runtime, tree: Tree, tmp_path: Path) -> None:
    with mounted(tmp_path, *merged(tree.overlapping)) as target:
        answers = probe(runtime, behind(target), [*ESCAPE, "read /planted", "read /up/lib/x"])
    assert answers["read /up/secret"] == "error ENOENT"
    assert answers["read /deep/er/up/secret"] == "error ENOENT"
    # The root's parent is the root: the write went there, and nowhere else.
    assert answers["read /planted"] == "ok by-the-guest"
    assert answers["read /up/lib/x"] == MOUNTED
    assert tree.names("app") >= {"planted"}
    assert "planted" not in tree.names(".") | tree.names("..")


# --- RUSTSEC-2026-0188: a read-only file under a second, writable name --------------------------

every_method = pytest.mark.parametrize("method", ["link", "rename"])

FIRST_STEP = {"link": "link", "rename": "link-beside"}


def exploit(runtime: Runtime, method: str, preopens: list[str]) -> list[str]:
    """Run the exploit guest; return its steps, each with what became of it."""
    return runtime.run("exploit", [method, "/config/settings", "/area/alias", "EVIL"], preopens)


def config_and_work(tree: Tree, read_only: str) -> list[str]:
    """Options for wasmtime: a preopen that the guest may only read, and one that it may write."""
    return [f"{read_only}={tree.root}/config::/config", f"--dir={tree.root}/area::/area"]


@every_method
def test_without_overlayd_the_vulnerable_runtime_overwrites_a_read_only_file(
    method: str, tree: Tree
) -> None:
    preopens = config_and_work(tree, "--ro-files")
    steps = exploit(WASMTIME_VULNERABLE, method, preopens)
    assert steps[-1] == "overwrite ok"
    assert tree.read("config/settings") == "EVILonfigured"


@every_method
def test_without_overlayd_the_newest_runtime_refuses(method: str, tree: Tree) -> None:
    steps = exploit(WASMTIME_NEWEST, method, config_and_work(tree, "--ro-files"))
    assert steps == [f"{FIRST_STEP[method]} Operation not permitted"]
    assert tree.read("config/settings") == "as-configured"


@pytest.mark.usefixtures("data_way")
@every_method
@every_runtime
def test_a_read_only_file_gets_no_writable_name(
    runtime: Runtime, method: str, tree: Tree, tmp_path: Path
) -> None:
    entries = [f"{tree.root}/config::/config::ro", f"{tree.root}/area::/area"]
    with mounted(tmp_path, *entries, options=WASI_ERRORS) as target:
        steps = exploit(runtime, method, behind(target))
    assert len(steps) == 1
    assert steps[0].startswith(FIRST_STEP[method])
    assert not steps[0].endswith(" ok")
    assert tree.read("config/settings") == "as-configured"
    assert tree.names("config") == {"settings"}
    assert tree.names("area") == {"scratch"}


# --- read-only files that had a second, writable name before the guest ran ----------------------


@dataclass(frozen=True)
class Alias:
    """A table in which one read-only host file can be reached by a writable way as well."""

    read_only: str
    writable: str
    way: str

    def apart(self, root: Path) -> list[str]:
        """For wasmtime, which knows how to make one preopen read-only."""
        return [f"--ro-dir={root}/{self.read_only}", f"--dir={root}/{self.writable}"]

    def merged(self, root: Path) -> list[str]:
        """For overlayd."""
        return [f"{root}/{self.read_only}::ro", f"{root}/{self.writable}"]


ALIASES = {
    "hard-link": Alias("config::/config", "area::/area", "/area/hard-link"),
    "one-directory-twice": Alias("config::/config", "config::/again", "/again/settings"),
    "read-only-below-writable": Alias("config::/config", "::/", "/area/../config/settings"),
}

every_alias = pytest.mark.parametrize("alias", ALIASES.values(), ids=ALIASES)


@pytest.fixture
def hard_link(tree: Tree) -> None:
    (tree.root / "area/hard-link").hardlink_to(tree.root / "config/settings")


@pytest.mark.usefixtures("hard_link")
@every_alias
@every_wasmtime
def test_without_overlayd_an_alias_is_writable(runtime: Runtime, alias: Alias, tree: Tree) -> None:
    expected = {f"overwrite {alias.way} EVIL": "ok", "read /config/settings": "ok EVILonfigured"}
    assert probe(runtime, alias.apart(tree.root), expected) == expected
    assert tree.read("config/settings") == "EVILonfigured"


@pytest.mark.usefixtures("data_way")
@pytest.mark.usefixtures("hard_link")
@every_alias
@every_runtime
def test_read_only_belongs_to_the_file_under_all_its_names(
    runtime: Runtime, alias: Alias, tree: Tree, tmp_path: Path
) -> None:
    expected = {
        f"overwrite {alias.way} EVIL": "error EPERM",
        f"write {alias.way} EVIL": "error EPERM",
        f"truncate {alias.way} 0": "error EPERM",
        f"touch {alias.way}": "error EPERM",
        f"read {alias.way}": "ok as-configured",
    }
    with mounted(tmp_path, *alias.merged(tree.root), options=WASI_ERRORS) as target:
        assert probe(runtime, behind(target), expected) == expected
    assert tree.read("config/settings") == "as-configured"


# --- errno as the guest sees it -----------------------------------------------------------------

CHANGES = [
    "write /config/settings x",
    "overwrite /config/settings x",
    "append /config/settings x",
    "truncate /config/settings 0",
    "touch /config/settings",
    "write /config/new x",
    "mkdir /config/new",
    "symlink settings /config/new",
    "link /config/settings /config/new",
    "rename /config/settings /config/new",
    "unlink /config/settings",
]

CROSSINGS = [
    "rename /main /area/main",
    "rename /area/scratch /lib/scratch",
    "rename /lib/x /x",
    "link /main /lib/main",
    "link /lib/x /area/x",
    "link /area/scratch /scratch",
]

# A libc that is told EXDEV copies instead; wasmtime keeps it from its guests.
EXDEV_AS_SEEN = [
    pytest.param(WASMTIME_NEWEST, "error EIO", id="wasmtime"),
    pytest.param(NODE, "error EXDEV", id="node"),
]


@pytest.mark.parametrize(("runtime", "answer"), EXDEV_AS_SEEN)
def test_nothing_moves_or_is_linked_between_mount_points(
    runtime: Runtime, answer: str, tree: Tree, tmp_path: Path
) -> None:
    entries = [*merged(tree.overlapping), f"{tree.root}/area::/area"]
    before = {path: tree.names(path) for path in ("app", "lib", "area")}
    with mounted(tmp_path, *entries) as target:
        answers = probe(runtime, behind(target), CROSSINGS)
    assert answers == dict.fromkeys(CROSSINGS, answer)
    assert {path: tree.names(path) for path in before} == before


READ_ONLY_AS_SEEN = [
    pytest.param(WASMTIME_NEWEST, "posix", "error EIO", id="wasmtime-posix"),
    pytest.param(WASMTIME_NEWEST, "wasi", "error EPERM", id="wasmtime-wasi"),
    pytest.param(NODE, "posix", "error EROFS", id="node-posix"),
    pytest.param(NODE, "wasi", "error EPERM", id="node-wasi"),
]


@pytest.mark.usefixtures("data_way")
@pytest.mark.parametrize(("runtime", "errors", "answer"), READ_ONLY_AS_SEEN)
def test_every_change_to_a_read_only_preopen_is_refused(
    runtime: Runtime, errors: str, answer: str, tree: Tree, tmp_path: Path
) -> None:
    entries = [*merged(tree.overlapping), f"{tree.root}/config::/config::ro"]
    with mounted(tmp_path, *entries, options=("--errors", errors)) as target:
        answers = probe(runtime, behind(target), CHANGES)
    assert answers == dict.fromkeys(CHANGES, answer)
    assert tree.read("config/settings") == "as-configured"
    assert tree.names("config") == {"settings"}

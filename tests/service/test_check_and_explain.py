"""`overlayd check` and `overlayd explain`: what a table amounts to, for people and programs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from aliases.private_mounts import in_private_mounts
from support.live import make_dirs
from support.mounting import mount_points
from support.processes import attempt, complaint


@pytest.fixture
def dirs(tmp_path: Path) -> list[str]:
    """Overlapping preopens; /lib is masked, /etc/app made up, /usr only leads to a mount point."""
    app, lib, conf, share = make_dirs(tmp_path, "app", "lib", "conf", "share")
    (app / "lib").mkdir()
    entries = [f"{app}::/", f"{lib}::/lib::ro", f"{conf}::/etc/app", f"{share}::/usr/share"]
    return [word for entry in entries for word in ("--dir", entry)]


def checked(*arguments: str) -> Any:
    """What `check --json` prints, its exit status 0."""
    done = attempt("check", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_the_tree_names_every_mount_point_mode_and_source(dirs: list[str], tmp_path: Path) -> None:
    done = attempt("check", *dirs)
    assert (done.returncode, done.stderr) == (0, "")
    tree = [line.split() for line in done.stdout.split("\n\n")[0].splitlines()]
    shown = {words[-3]: (words[-2], words[-1]) for words in tree if "synthetic" not in words[-6:]}
    rows = {line.replace("│", " ").split("  ")[0] for line in done.stdout.splitlines()}
    assert any(row.strip("├└─ ") == "usr" for row in rows)
    assert shown["/"] == ("rw", f"{tmp_path}/app")
    assert shown["lib"] == ("ro", f"{tmp_path}/lib")
    assert shown["app"] == ("rw", f"{tmp_path}/conf")
    assert shown["share"] == ("rw", f"{tmp_path}/share")


def test_the_order_of_the_flags_does_not_matter(dirs: list[str]) -> None:
    pairs = [dirs[i : i + 2] for i in range(0, len(dirs), 2)]
    turned = [word for pair in reversed(pairs) for word in pair]
    assert attempt("check", *dirs).stdout == attempt("check", *turned).stdout
    assert checked(*dirs) == checked(*turned)


def test_overlaps_say_what_masks_what(dirs: list[str], tmp_path: Path) -> None:
    text = attempt("check", *dirs).stdout
    assert f"/lib masks the directory {tmp_path}/app/lib" in text
    assert "/etc/app is made up" in text
    report = checked(*dirs)
    overlaps = {overlap["guest"]: overlap for overlap in report["overlaps"]}
    assert overlaps["/lib"]["masks"] == f"{tmp_path}/app/lib"
    assert overlaps["/lib"]["kind"] == "directory"
    assert overlaps["/lib"]["synthetic"] == []
    assert overlaps["/etc/app"]["masks"] is None
    assert overlaps["/etc/app"]["synthetic"] == ["/etc", "/etc/app"]
    assert overlaps["/usr/share"]["around"] == f"{tmp_path}/app"


def test_the_keys_that_programs_rely_on(dirs: list[str], tmp_path: Path) -> None:
    report = checked(*dirs)
    assert {"preopens", "overlaps", "warnings"} <= set(report)
    assert report["preopens"] == [
        {"guest": "/", "host": f"{tmp_path}/app", "mode": "rw"},
        {"guest": "/etc/app", "host": f"{tmp_path}/conf", "mode": "rw"},
        {"guest": "/lib", "host": f"{tmp_path}/lib", "mode": "ro"},
        {"guest": "/usr/share", "host": f"{tmp_path}/share", "mode": "rw"},
    ]
    for overlap in report["overlaps"]:
        assert {"guest", "around", "masks", "kind", "synthetic"} <= set(overlap)
    assert report["warnings"] == []


def test_strict_fails_only_for_a_warning(dirs: list[str], tmp_path: Path) -> None:
    assert attempt("check", "--strict", *dirs).returncode == 0
    (tmp_path / "app/link").symlink_to("lib")
    dirs += ["--dir", f"{tmp_path}/share::/link"]
    done = attempt("check", "--strict", *dirs)
    assert done.returncode == 1
    assert f"warning: /link masks only the symbolic link {tmp_path}/app/link" in done.stdout
    assert "(lib) stays visible" in done.stdout
    assert attempt("check", *dirs).returncode == 0
    (warning,) = [w for w in checked(*dirs)["warnings"] if "/link" in w]
    assert "stays visible" in warning


def test_check_and_explain_mount_and_make_nothing(dirs: list[str], tmp_path: Path) -> None:
    """Among mounts of its own, since others come and go on the machine meanwhile."""

    def look() -> None:
        before, listed = mount_points(), sorted(tmp_path.rglob("*"))
        assert attempt("check", *dirs).returncode == 0
        assert attempt("explain", *dirs, "/etc/app/file").returncode == 0
        assert mount_points() == before
        assert sorted(tmp_path.rglob("*")) == listed

    in_private_mounts(look)


def test_check_reads_the_configuration_file(tmp_path: Path) -> None:
    app, lib = make_dirs(tmp_path, "app", "lib")
    config = tmp_path / "overlayd.toml"
    config.write_text('[[dir]]\nhost = "app"\nguest = "/"\nro = true\n')
    report = checked("--config", str(config), "--dir", f"{lib}::/lib")
    assert report["preopens"] == [
        {"guest": "/", "host": str(app), "mode": "ro"},
        {"guest": "/lib", "host": str(lib), "mode": "rw"},
    ]


# -- explain --------------------------------------------------------------------------------------


def explained(dirs: list[str], *paths: str) -> list[dict[str, Any]]:
    """What `explain --json` prints."""
    done = attempt("explain", "--json", *dirs, *paths)
    assert (done.returncode, done.stderr) == (0, "")
    answer: list[dict[str, Any]] = json.loads(done.stdout)
    return answer


def test_who_provides_a_path(dirs: list[str], tmp_path: Path) -> None:
    file, masked, made_up, mount_point = explained(dirs, "/file", "/lib/file", "/usr", "/etc/app")
    assert (file["host"], file["writable"], file["kind"]) == (f"{tmp_path}/app/file", True, "file")
    assert (masked["host"], masked["writable"]) == (f"{tmp_path}/lib/file", False)
    assert "read-only" in masked["reason"] and f"{tmp_path}/lib" in masked["provider"]
    assert (made_up["provider"], made_up["host"], made_up["writable"]) == (None, None, False)
    assert "synthetic" in made_up["reason"]
    assert (mount_point["host"], mount_point["kind"]) == (f"{tmp_path}/conf", "directory")


def test_the_same_for_people(dirs: list[str], tmp_path: Path) -> None:
    done = attempt("explain", *dirs, "/lib/file")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[0] == "/lib/file"
    assert f"host path: {tmp_path}/lib/file" in lines
    assert any(line.startswith("writable:  no") for line in lines)


def test_links_on_the_way_are_followed_inside_the_namespace(
    dirs: list[str], tmp_path: Path
) -> None:
    (tmp_path / "app/absolute").symlink_to("/lib")
    (tmp_path / "app/upwards").symlink_to("../../../../lib")
    (tmp_path / "app/loop").symlink_to("loop")
    absolute, upwards, last = explained(dirs, "/absolute/file", "/upwards/file", "/absolute")
    assert absolute["guest"] == upwards["guest"] == "/lib/file"
    assert absolute["asked"] == "/absolute/file"
    assert absolute["host"] == f"{tmp_path}/lib/file"
    assert (last["guest"], last["kind"]) == ("/absolute", "symbolic link")
    assert "levels of symbolic links" in complaint(attempt("explain", *dirs, "/loop/x"), 1)


def test_paths_that_lead_nowhere(dirs: list[str]) -> None:
    assert "/no/such" in complaint(attempt("explain", *dirs, "/no/such"), 1)
    assert "not a directory" in complaint(attempt("explain", *dirs, "/file/below"), 1)
    assert "'..'" in complaint(attempt("explain", *dirs, "/lib/../file"), 2)
    complaint(attempt("explain", *dirs, ""), 2)


def test_names_that_are_not_text(tmp_path: Path) -> None:
    (source,) = make_dirs(tmp_path, "source")
    (source / os.fsdecode(b"odd\xff\n")).touch()
    name = os.fsdecode(b"odd\xff\n")
    (answer,) = explained(["--dir", f"{source}::/"], f"/{name}")
    assert answer["host"] == f"{source}/odd\\xff\\n"
    assert attempt("explain", "--dir", f"{source}::/", f"/{name}").returncode == 0

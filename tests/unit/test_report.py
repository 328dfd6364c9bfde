"""What `check` says about a table, as data."""

from __future__ import annotations

import json
from pathlib import Path

from overlayd.host.sources import open_sources
from overlayd.table.mount_tree import build_table
from overlayd.table.preopen import parse_preopen
from overlayd.table.report import Overlap, as_json, find_overlaps, tree_lines
from support.planting import plant


def overlaps(*dirs: str) -> list[Overlap]:
    table = build_table(parse_preopen(text) for text in dirs)
    return find_overlaps(table, [source.covers for source in open_sources(table)])


def lines(*dirs: str) -> list[str]:
    return list(tree_lines(build_table(parse_preopen(text) for text in dirs)))


def test_the_tree_shows_every_entry_once() -> None:
    assert lines("/1::/", "/2::/lib::ro", "/3::/lib/x", "/4::/z") == [
        "/          rw  /1",
        "├── lib    ro  /2",
        "│   └── x  rw  /3",
        "└── z      rw  /4",
    ]


def test_what_only_leads_to_a_mount_point_is_marked() -> None:
    marked = [line for line in lines("/1::/a/b/c") if "synthetic" in line]
    assert len(marked) == 3
    assert marked[0].startswith("/ ")


def test_control_characters_never_reach_the_terminal() -> None:
    assert all(line.isprintable() for line in lines("/1\x1b[31m::/a\nb"))


def test_entries_side_by_side_do_not_overlap(tmp_path: Path) -> None:
    plant(tmp_path, "a/", "b/")
    assert overlaps(f"{tmp_path}/a::/a", f"{tmp_path}/b::/b") == []


def test_a_masked_directory(tmp_path: Path) -> None:
    plant(tmp_path, "a/lib/x=1", "b/")
    (overlap,) = overlaps(f"{tmp_path}/a::/", f"{tmp_path}/b::/lib")
    assert overlap.sentence() == f"/lib masks the directory {tmp_path}/a/lib"
    assert (overlap.kind, overlap.synthetic, overlap.warning) == ("directory", (), None)


def test_a_masked_file(tmp_path: Path) -> None:
    plant(tmp_path, "a/lib=1", "b/")
    (overlap,) = overlaps(f"{tmp_path}/a::/", f"{tmp_path}/b::/lib")
    assert overlap.kind == "file"


def test_a_masked_link_says_that_its_target_stays_visible(tmp_path: Path) -> None:
    plant(tmp_path, "a/real/", "a/lib->real", "b/")
    (overlap,) = overlaps(f"{tmp_path}/a::/", f"{tmp_path}/b::/lib")
    assert overlap.kind == "symbolic link"
    assert overlap.warning is not None
    assert "(real) stays visible" in overlap.warning


def test_synthetic_directories_are_listed(tmp_path: Path) -> None:
    plant(tmp_path, "a/x/", "b/")
    (overlap,) = overlaps(f"{tmp_path}/a::/", f"{tmp_path}/b::/x/y/z")
    assert overlap.synthetic == ("/x/y", "/x/y/z")
    assert overlap.masks is None
    assert "made up" in overlap.sentence()


def test_the_enclosing_entry_is_the_nearest_one(tmp_path: Path) -> None:
    plant(tmp_path, "a/", "b/c/", "c/")
    found = overlaps(f"{tmp_path}/a::/", f"{tmp_path}/b::/b", f"{tmp_path}/c::/b/c")
    assert [overlap.around for overlap in found] == [f"{tmp_path}/a", f"{tmp_path}/b"]


def test_json_is_complete_and_serialisable(tmp_path: Path) -> None:
    plant(tmp_path, "a/real/", "a/lib->real", "b/")
    table = build_table(
        parse_preopen(text) for text in (f"{tmp_path}/a::/::ro", f"{tmp_path}/b::/lib")
    )
    found = find_overlaps(table, [source.covers for source in open_sources(table)])
    report = json.loads(json.dumps(as_json(table, found, [])))
    assert report["preopens"][:2] == [
        {"guest": "/", "host": f"{tmp_path}/a", "mode": "ro"},
        {"guest": "/lib", "host": f"{tmp_path}/b", "mode": "rw"},
    ]
    assert report["overlaps"][0]["masks"] == f"{tmp_path}/a/lib"
    assert report["warnings"] == [found[0].warning]

"""What readlink returns (SPEC.md section 5), case by case; the oracle is in its own file."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from support.core_guest import Guest, fails
from support.planting import plant

PATH_MAX = 4095


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    plant(tmp_path, "a/f=top", "a/d/f=low", "a/d/e/", "a/x/", "a/d/up->..", "a/top->/")
    plant(tmp_path, "b/f=in mount", "b/d/")
    return Guest(f"{tmp_path}/a::/", f"{tmp_path}/b::/d/m", f"{tmp_path}/b::/s/t")


def readlink(guest: Guest, path: str, target: str) -> str:
    """What readlink says of a new link PATH to TARGET."""
    made = guest.symlink(target, path)
    answer = guest.readlink(path)
    assert made.size == len(answer), "st_size is the length of what readlink returns"
    assert guest.stat(path).size == len(answer)
    return answer.decode()


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("/", "../.."),
        ("//", "../.."),
        ("/f", "../../f"),
        ("/d", ".."),
        ("/d/f", "../f"),
        ("/d/e", "."),
        ("/d/e/none", "none"),
        ("//d//./f", "../f"),
        ("/x/", "../../x/"),
        ("/x/.", "../../x/"),
        ("/d/e/", "./"),
        ("/none/at/all", "../../none/at/all"),
        ("/..", "../.."),
        ("/../../f", "../../f"),
        ("/d/../x", "../../x"),
        ("/d/../../../x", "../../x"),
    ],
)
def test_an_absolute_target_starts_at_the_guests_root(
    guest: Guest, target: str, answer: str
) -> None:
    assert readlink(guest, "/d/e/l", target) == answer


def test_in_the_root_an_absolute_target_needs_no_climbing(guest: Guest) -> None:
    assert readlink(guest, "/l", "/d/f") == "d/f"
    assert readlink(guest, "/m", "/") == "."


@pytest.mark.parametrize(
    "target",
    [
        *(
            "f",
            "./f",
            "../f",
            "../../f",
            ".",
            "..",
            "../..",
            "none",
            "none/..",
            "../e/../f",
            "e//f",
        ),
        *("f/", "../e/", "up/f", "../up/x", "./../f", ".../f", "..f"),
    ],
)
def test_a_target_that_stays_inside_comes_back_unchanged(guest: Guest, target: str) -> None:
    assert readlink(guest, "/d/e/l", target) == target


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("../../../f", "../../f"),
        ("../../../../../../etc/passwd", "../../etc/passwd"),
        ("../../..", "../.."),
        ("./.././../../x/", "../../x/"),
        ("../../../d/e/g", "g"),
    ],
)
def test_dot_dot_stops_at_the_root(guest: Guest, target: str, answer: str) -> None:
    assert readlink(guest, "/d/e/l", target) == answer


def test_a_link_on_the_way_is_walked_not_clamped_lexically(guest: Guest) -> None:
    """`up` leads to /, so `up/../f` is /f; taken lexically it would be /d/f."""
    assert readlink(guest, "/d/l", "up/../f") == "../f"
    assert readlink(guest, "/d/e/l", "/d/up/../../x") == "../../x"
    assert readlink(guest, "/d/e/m", "../../top/../../d/f") == "../f"


def test_a_link_that_climbs_only_after_another_link(guest: Guest, tmp_path: Path) -> None:
    """The guest of the issue: s -> .., then s/../x, in a source that lies deep on the host."""
    plant(tmp_path, "x=outside", "a/turn->..")
    assert readlink(guest, "/l", "turn/../x") == "x"
    assert readlink(guest, "/m", "..") == "."


def test_a_relative_link_through_mount_points(guest: Guest) -> None:
    assert readlink(guest, "/d/m/l", "../../../f") == "../../f"
    assert readlink(guest, "/d/m/n", "/d/m/f") == "f"
    assert readlink(guest, "/s/t/k", "/d/m/f") == "../../d/m/f"
    assert readlink(guest, "/x/l", "../s/t/d/../../../../f") == "../f"


def test_a_link_inside_a_mount_point_never_shows_the_hosts_parent(
    guest: Guest, tmp_path: Path
) -> None:
    """On the host, /b/l -> ../f is the file beside the source; here it is the namespace's."""
    plant(tmp_path, "b/l->../f", "f=host")
    assert guest.readlink("/d/m/l") == b"../f"
    assert guest.read("/d/f") == "low"


def test_a_link_moved_to_a_shallower_directory(guest: Guest) -> None:
    assert readlink(guest, "/d/e/l", "../../f") == "../../f"
    guest.rename("/d/e/l", "/d/l")
    assert guest.readlink("/d/l") == b"../f"
    assert guest.stat("/d/l").size == 4
    guest.rename("/d/l", "/l")
    assert guest.readlink("/l") == b"f"
    guest.rename("/l", "/d/e/l")
    assert guest.readlink("/d/e/l") == b"../../f"


def test_a_directory_moved_to_a_shallower_place_takes_its_links_along(guest: Guest) -> None:
    guest.symlink("../../f", "/d/e/l")
    number = guest.number("/d/e/l")
    guest.rename("/d/e", "/e")
    assert guest.readlink("/e/l") == b"../f"
    assert guest.attributes.readlink(number) == b"../f"


def test_the_walk_is_taken_anew_each_time(guest: Guest, tmp_path: Path) -> None:
    (tmp_path / "a/x/deep").mkdir()
    plant(tmp_path, "a/via->x/deep")
    assert readlink(guest, "/l", "via/../../f") == "via/../../f"
    (tmp_path / "a/via").unlink()
    plant(tmp_path, "a/via->x")
    assert guest.readlink("/l") == b"f"


@pytest.mark.parametrize(
    ("target", "answer"),
    [
        ("none/../../../f", "none/."),
        ("f/../../../f", "f/."),
        ("/none/../f", "../none/."),
        ("/f/../d", "../f/."),
        ("../../none/../d/f", "../none/."),
    ],
)
def test_a_link_through_nothing_leads_nowhere(guest: Guest, target: str, answer: str) -> None:
    """The answer ends at the component that fails, so that it fails for whoever follows it."""
    assert readlink(guest, "/d/l", target) == answer


# -- loops and limits ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "links",
    [["l->l"], ["l->m/../x", "m->l/../x"], ["l->m/..", "m->../l/.."], ["l->l/../l/../../x"]],
)
def test_loops_end(tmp_path: Path, links: list[str]) -> None:
    guest = Guest(f"{plant(tmp_path / 'a', *links)}::/")
    answer = guest.readlink("/l")
    assert not answer.startswith(b"/")


def test_a_chain_longer_than_the_kernel_follows(tmp_path: Path) -> None:
    plant(tmp_path / "a", "n0/", *(f"n{i}->n{i - 1}" for i in range(1, 60)), "l->n59/../../x")
    guest = Guest(f"{tmp_path}/a::/")
    assert not guest.readlink("/l").startswith((b"..", b"/")), "it stays inside, whatever it says"


def test_a_target_of_path_max_bytes(guest: Guest) -> None:
    longest = "n/" * 2047 + "n"
    assert readlink(guest, "/d/l", longest) == longest
    assert readlink(guest, "/l", "/" + longest[:-1]) == longest[:-1]


def test_a_target_that_no_longer_fits_once_rebased(guest: Guest) -> None:
    """It can still be looked at, listed, moved and removed."""
    target = "/" + "n/" * 2047
    assert len(target) == PATH_MAX
    assert guest.symlink(target, "/d/e/l").size > 0
    with fails(errno.ENAMETOOLONG):
        guest.readlink("/d/e/l")
    assert "l" in guest.ls("/d/e")
    guest.rename("/d/e/l", "/l")
    assert len(guest.readlink("/l")) == PATH_MAX - 1
    guest.rename("/l", "/d/e/l")
    guest.unlink("/d/e/l")


def test_bytes_that_are_no_text(guest: Guest) -> None:
    guest.symlink(b"/x/\xff\xfe", "/d/l")
    assert guest.readlink("/d/l") == b"../x/\xff\xfe"


# -- what is stored -----------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/f", "../../../f", "//d/./f/", "x/../y", " ", "n" * PATH_MAX])
def test_the_target_is_stored_byte_for_byte(guest: Guest, tmp_path: Path, target: str) -> None:
    guest.symlink(target, "/d/l")
    assert os.readlink(tmp_path / "a/d/l") == target


def test_verbatim_returns_what_is_stored(tmp_path: Path) -> None:
    plant(tmp_path, "a/d/")
    guest = Guest(f"{tmp_path}/a::/", symlinks="verbatim")
    for target in ("/f", "../../../f", "s/../x", "x"):
        assert readlink(guest, "/d/l", target) == target
        guest.unlink("/d/l")


def test_operations_act_on_the_link_not_on_what_it_points_to(guest: Guest, tmp_path: Path) -> None:
    guest.symlink("f", "/l")
    guest.link("/l", "/hard")
    assert guest.number("/hard") == guest.number("/l")
    guest.unlink("/l")
    assert os.readlink(tmp_path / "a/hard") == "f"
    assert guest.read("/f") == "top"
    with fails(errno.EACCES):
        guest.open("/hard")
    with fails(errno.ENOTDIR):
        guest.number("/top/d")


def test_looking_at_a_link_reads_it_once(tmp_path: Path) -> None:
    """Reading moves the host's atime; what a link stores never changes."""
    plant(tmp_path, "a/d/", "a/l->/d/x", "a/m->/d")
    guest = Guest(f"{tmp_path}/a::/")
    guest.link("/l", "/d/l")
    assert (guest.stat("/l").size, guest.stat("/d/l").size) == (len("d/x"), len("x"))
    link = tmp_path / "a/l"
    os.utime(link, (1, 1), follow_symlinks=False)
    assert [guest.stat("/l").size for _ in range(3)] == [len("d/x")] * 3
    guest.rename("/l", "/d/n")
    assert guest.stat("/d/n").size == len("x")
    guest.rename("/d/n", "/l")
    guest.ls("/")
    assert os.lstat(link).st_atime == 1
    assert guest.readlink("/l") == b"d/x"
    assert os.lstat(link).st_atime > 1
    link.unlink()
    os.replace(tmp_path / "a/m", link)
    assert guest.stat("/l").size == len("d")


def test_a_link_with_two_names_is_asked_each_time(tmp_path: Path) -> None:
    plant(tmp_path, "a/d/", "a/l->x")
    guest = Guest(f"{tmp_path}/a::/")
    assert not guest.stat("/l").volatile
    os.link(tmp_path / "a/l", tmp_path / "a/d/l", follow_symlinks=False)
    assert guest.stat("/l").volatile and guest.stat("/d/l").volatile

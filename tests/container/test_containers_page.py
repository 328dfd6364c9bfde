"""docs/containers.md, its commands run as they stand."""

from __future__ import annotations

import re

from container.engine import LIMITS, Engine
from container.manifests import ROOT

_PAGE = ROOT / "docs" / "containers.md"
_PLACE = "/srv/demo"


def commands(heading: str) -> tuple[str, list[str]]:
    """The script and the expected output of the console block below HEADING."""
    section = _PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    block = section.partition("```console\n")[2].partition("```")[0]
    block = re.sub(r"\\\n\s*", "", block)
    lines = block.splitlines()
    script = "\n".join(line[2:] for line in lines if line.startswith("# "))
    return script, [line for line in lines if not line.startswith("# ")]


def test_podman_by_hand(engine: Engine) -> None:
    script, expected = commands("podman or Docker by hand")
    assert script.count("podman") == 4 and script.count(_PLACE) > 5
    place = engine.shared / "demo"
    ours = (
        f"cd {ROOT}\n"
        'podman() { verb=$1; shift; [ "$verb" != run ] || set -- ' + " ".join(LIMITS) + ' "$@";'
        f' command {" ".join(engine.box.podman_command)} "$verb" "$@"; }}\n'
    )
    done = engine.box.run("sh", "-euc", ours + script.replace(_PLACE, str(place)))
    said = [line for line in done.stdout.splitlines() if not re.fullmatch("[0-9a-f]{64}", line)]
    assert said == [*expected, "overlayd"]  # the name of what was stopped
    assert engine.exit_status("overlayd") == 0
    assert not engine.box.is_mounted(place / "shared" / "guest")

"""The README's examples, by heading and number."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"


def section(heading: str) -> str:
    """What stands below *heading*, up to the next one of its rank."""
    rank = heading.partition(" ")[0]
    _, _, below = README.read_text().partition(f"\n{heading}\n")
    assert below, heading
    return re.split(rf"^{rank} ", below, flags=re.MULTILINE)[0]


def block(text: str, number: int) -> str:
    """The commands of the console block with that number, without their prompts and output."""
    lines = re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[number]
    commands, inside = [], False
    for line in lines.splitlines():
        if line.startswith(("# ", "$ ")):
            commands.append(line[2:])
            inside = "<<'END'" in line
        elif inside:
            commands.append(line)
            inside = line != "END"
    return "\n".join(commands)

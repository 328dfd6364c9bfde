"""What overlayd costs, beside other file systems on the same tree: `make bench`.

`run` is the program. `subjects` mounts, `workloads`, `programs`, `data` and `scaling` say what is
done, `measure` does it, `goals`, `plots` and `report` say what came out.
"""

import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]

sys.path.append(str(TOP / "tests"))  # its support package mounts and compiles guests, too

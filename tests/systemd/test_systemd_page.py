"""docs/systemd.md, done as it says."""

from __future__ import annotations

import re
import shutil

from support import toolchain
from support.instance import Instance
from support.machine import REPOSITORY, Machine


def test_the_page_works_when_it_is_copied_and_pasted(machine: Machine, wasmtime: None) -> None:
    page = (REPOSITORY / "docs" / "systemd.md").read_text()
    *setting_up, removal = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    demo = Instance(machine, "demo")
    machine.run("mkdir", "/run/pasted")
    shutil.copy(toolchain.guest("resident"), machine.inside("/run/pasted/app.wasm"))
    try:
        shown = ""
        for block in setting_up:
            shown += machine.run("sh", "-euc", f"cd /run/pasted; {block}").stdout
        assert "/data  rw  /var/lib/app" in re.sub(r"[│├└─]+ *", "/", shown)
        assert "\nhello\n" in shown
        assert "Active: active (running)" in shown
        count = machine.inside("/var/lib/app/count")
        assert demo.guest_works(count)
        assert count.stat().st_uid == int(machine.run("id", "-u", "app").stdout)
        assert "lib" in machine.run("ls", demo.target).stdout.split()
        machine.run("sh", "-euc", removal)
        assert machine.state(demo.guest) == machine.state(demo.unit) == "inactive"
    finally:
        demo.clean_up()

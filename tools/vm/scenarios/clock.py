"""The fifth: the clock starts in 1970 and jumps to today."""

from __future__ import annotations

from tools.vm.device import STATUS, Device
from tools.vm.machine import MEASURED
from tools.vm.table import show

KERNEL = MEASURED
PARTS = ("jump",)
_TODAY = "2030-01-01 12:00:00"


def jump(device: Device) -> str:
    """What waits while the clock jumps by decades is answered, and nothing expires."""
    run = device.machine.out
    run("date -s '1970-01-02 00:00:00' && systemctl restart edged.service", seconds=60)
    device.ready()
    asked = device.machine.start(device.asking("Hello", tokens=32).replace("ask ", "ask --ttl 300 ", 1))
    device.machine.until(f"{STATUS} | grep -Eq '\"accepted\": [1-9]'")
    run(f"date -s '{_TODAY}'")
    said = device.machine.ended(asked, "the ask over the jump", 240)
    show(said.code == 0, f"the ask over the jump: {said.err}")
    device.ask()
    show(device.property("NRestarts") == "0", "the daemon was started again")
    return f"from 1970 to {_TODAY[:4]} in mid-answer"

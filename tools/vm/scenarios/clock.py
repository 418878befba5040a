"""The fifth: the clock starts in 1970 and jumps to today."""

from __future__ import annotations

from tools.vm.device import Device
from tools.vm.machine import MEASURED
from tools.vm.table import show

KERNEL = MEASURED
PARTS = ("jump",)
PROMPTS = 4
_TODAY = "2030-01-01 12:00:00"


def jump(device: Device) -> str:
    """What waits while the clock jumps by decades is answered, and nothing expires."""
    run = device.machine.out
    run("date -s '1970-01-02 00:00:00' && systemctl restart edged.service")
    device.ready()
    asked = [f"jump-{number}" for number in range(PROMPTS)]
    for id in asked:
        device.requester.ask(id, prompt="Hello", max_tokens=96, ttl_s=600)
    device.heard(lambda: all(device.requester.frames(id) for id in asked), 120)
    run(f"date -s '{_TODAY}'")
    frames = device.ends(asked)
    show(all(frame["type"] == "done" for frame in frames), f"not all are done: {frames}")
    device.ask()
    show(device.property("NRestarts") == "0", "the daemon was started again")
    return f"from 1970 to {_TODAY[:4]} while {len(asked)} prompts ran or waited, all are answered"

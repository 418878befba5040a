"""The second: parts die or hang, and what was accepted is answered."""

from __future__ import annotations

import time

from tools.vm.device import Device
from tools.vm.machine import MEASURED
from tools.vm.table import show

KERNEL = MEASURED
PARTS = ("engine_killed", "engine_stopped", "daemon_killed", "daemon_stopped")

PROMPTS = 3


def engine_killed(device: Device) -> str:
    """A killed engine is replaced, and an ask that came meanwhile is answered."""
    device.ready()
    before, daemon = device.engine(), device.pid()
    device.machine.out(f"kill -KILL {before}")
    begun = time.monotonic()
    device.ask()
    seconds = time.monotonic() - begun
    show(device.engine() != before, "the engine is the old one")
    show(device.pid() == daemon, "the daemon went with its engine")
    return f"another engine answered after {seconds:.0f} s, edgectl's own start among them"


def engine_stopped(device: Device) -> str:
    """An engine that does not move is noticed and replaced."""
    device.ready()
    before, daemon = device.engine(), device.pid()
    asked = device.machine.start(device.asking("Hello", tokens=48))
    device.machine.out(f"kill -STOP {before}")
    seconds = device.machine.until(f"! kill -0 {before} 2>/dev/null", seconds=240)
    said = device.machine.ended(asked, "the ask", 240)
    show(said.code == 0, f"the ask that waited: exit code {said.code}: {said.err}")
    show(device.pid() == daemon, "the daemon went with its engine")
    return f"replaced after {seconds:.0f} s, the ask was answered"


def daemon_killed(device: Device) -> str:
    """systemd starts a killed daemon again; who asks meanwhile waits on the socket."""
    before = device.pid()
    device.machine.out(f"kill -KILL {before}")
    device.ask()
    show(device.pid() not in (0, before), "the daemon is the old one")
    return "asked while it was away, answered"


def daemon_stopped(device: Device) -> str:
    """The watchdog replaces a daemon that does not move, and accepted prompts are answered."""
    device.ready()
    before, asked = device.pid(), [f"stopped-{number}" for number in range(PROMPTS)]
    for id in asked:
        device.requester.ask(id, prompt="Hello", max_tokens=40)
    device.heard(lambda: all(device.requester.frames(id) for id in asked), 120)
    device.machine.out(f"kill -STOP {before}")
    seconds = device.machine.until(f"! kill -0 {before} 2>/dev/null", seconds=240)
    frames = device.ends(asked, 300)
    show(all(frame["type"] == "done" for frame in frames), f"not all are done: {frames}")
    return f"the watchdog ended it after {seconds:.0f} s; {len(asked)} accepted prompts were answered"

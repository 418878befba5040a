"""The second: parts die or hang, and what was accepted is answered."""

from __future__ import annotations

import json
import shlex

from tools.vm.device import Device
from tools.vm.table import show

PARTS = ("engine_killed", "engine_stopped", "daemon_killed", "daemon_stopped")

_FRAMES = "/root/frames"


def engine_killed(device: Device) -> str:
    """A killed engine is replaced, and an ask that came meanwhile is answered."""
    device.ready()
    before, daemon = device.engine(), device.pid()
    device.machine.out(f"kill -KILL {before}")
    device.ask()
    show(device.engine() != before, "the engine is the old one")
    show(device.pid() == daemon, "the daemon went with its engine")
    return "another engine answered"


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
    before, asked = device.pid(), 3
    prompts = [
        json.dumps({"id": f"stop-{number}", "prompt": "Hello", "max_tokens": 40}) for number in range(asked)
    ]
    ask = "; ".join(
        f"mosquitto_pub -q 1 -t edged/v1/device/ask/test -m {shlex.quote(each)}" for each in prompts
    )
    device.machine.start(f"mosquitto_sub -q 1 -t 'edged/v1/device/reply/test/#' -F %p > {_FRAMES}")
    device.machine.until(f"test -e {_FRAMES}")
    device.machine.out(ask)
    device.machine.until(
        f"test $(journalctl -q -u edged.service -o cat | grep -c 'accepted.*stop-') -ge {asked}"
    )
    device.machine.out(f"kill -STOP {before}")
    seconds = device.machine.until(f"! kill -0 {before} 2>/dev/null", seconds=240)
    # Terminal frames alone: whatever the number of chunks, each prompt ends in one.
    ended = f'grep -E \'"type": ?"(done|error)"\' {_FRAMES}'
    device.machine.until(f"test $({ended} | wc -l) -ge {asked}", seconds=300)
    frames = device.machine.out(f"pkill mosquitto_sub; {ended}").splitlines()
    show(len(frames) == asked, f"{len(frames)} terminal frames for {asked} prompts")
    show(all(json.loads(frame)["type"] == "done" for frame in frames), f"not all are done: {frames}")
    return f"the watchdog ended it after {seconds:.0f} s; {asked} accepted prompts were answered"

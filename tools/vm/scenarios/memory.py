"""The third: others take the memory to the edge, level by level, and give it back."""

from __future__ import annotations

from pathlib import PurePosixPath

from edged.watch.memory.bounds import Bounds, Level
from tools.vm.device import PAYLOAD, STATUS, Device
from tools.vm.machine import MEASURED
from tools.vm.table import show

KERNEL = MEASURED
PARTS = ("of_the_machine", "of_the_unit")

_GROUP = PurePosixPath("/sys/fs/cgroup/system.slice/edged.service")
_LIMIT = 400 << 20
_BELOW = 2 << 20  # how far below its bound a level is held
_LEFT, _ASKED, _KILLS = "/run/hog", "/run/asked", 'grep -Eci "out of memory|oom-kill"'


def of_the_machine(device: Device) -> str:
    """Another service takes the machine's memory."""
    return _to_the_edge(device, None)


def of_the_unit(device: Device) -> str:
    """The memory of the service's own group, which has a limit, is taken."""
    limit = "systemctl set-property --runtime edged.service MemoryMax="
    device.machine.out(limit + str(_LIMIT))
    try:
        return _to_the_edge(device, _GROUP)
    finally:
        device.machine.out(limit + "80%")


def _to_the_edge(device: Device, group: PurePosixPath | None) -> str:
    run, until = device.machine.out, device.machine.until
    device.ready()
    before = device.pid(), run(f"journalctl -q -k -b | {_KILLS} || true")
    memory = device.status()["watch"]["memory"]
    bounds = Bounds.of(_LIMIT if group else memory["total_bytes"])
    name = "unit" if group else "machine"
    asked: list[str] = []
    run(f"rm -f {_LEFT}; touch {_ASKED}")
    asking = device.machine.start(
        f"while test -e {_ASKED}; do {STATUS} -f -o /dev/null && echo y || echo n; sleep 1; done"
    )
    hog = None
    try:
        for level in (Level.WARN, Level.SHED, Level.EVICT):
            # The machine's spare memory is less the engine's mapped pages, which a group's is not.
            mapped = memory.get("engine_mapped_bytes", 0) if level < Level.EVICT and not group else 0
            left = getattr(bounds, level.label) + mapped - _BELOW
            run(f"echo {left} > {_LEFT}.new && mv {_LEFT}.new {_LEFT}")
            hog = hog or device.machine.start(f"python3 -I {PAYLOAD}/hog.py {_LEFT} {group or ''}")
            at_least = "|".join(each.label for each in Level if each >= level)
            until(f"""{STATUS} | grep -Eq '"memory": \\{{"level": "({at_least})"'""", seconds=180)
            asked.append(f"{name}-{level.label}-{device.machine.boot[:8]}")
            device.requester.ask(asked[-1], prompt="Hello", max_tokens=8)
    finally:
        run(f"rm -f {_LEFT}")
    if hog:
        show(device.machine.ended(hog, "the hog").code == 0, "the hog itself failed")
    until(f"""{STATUS} | grep -q '"memory": {{"level": "ok"'""", seconds=400)
    frames = device.ends(asked)
    show(all(frame["type"] == "done" for frame in frames), f"not all was answered: {frames}")
    device.ask()
    run(f"rm {_ASKED}")
    answers = device.machine.ended(asking, "who asks for the status").out.split()
    show(
        "n" not in answers,
        f"{answers.count('n')} of {len(answers)} questions for the status were not answered",
    )
    show((device.pid(), run(f"journalctl -q -k -b | {_KILLS} || true")) == before, "something was killed")
    return (
        f"warn, shed, evict and back to ok; {len(asked)} prompts waited; status answered {len(answers)} times"
    )

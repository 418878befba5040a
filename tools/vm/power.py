"""The fourth: the power goes in mid-answer, again and again, and what was accepted is answered."""

from __future__ import annotations

import dataclasses
import functools
import random
import shutil
import subprocess
import time
from pathlib import Path

from tools.vm.device import Device
from tools.vm.machine import MEASURED, Machine
from tools.vm.stand import Stand
from tools.vm.table import show
from tools.vm.writes import rebuild, recorded

PROMPTS, TOKENS = 4, 64
LONGEST_SECONDS = 3.0
"""How long after the first words of an answer the power may last."""


def cut(stand: Stand, cuts: int, seed: int) -> None:
    """Cut the power so many times, each time out of the system that came back from the last.

    Raises:
        GoneError: the machine does not come up again.
    """
    stand.device(MEASURED)
    chance = random.Random(seed)
    disk, place = stand.disk(), stand.place / "power"
    asked: list[str] = []
    for number in range(1, cuts + 2):
        log = stand.place / "writes"
        image = dataclasses.replace(stand.image, disk=disk)
        machine = Machine(image, place, kernel_options=MEASURED, log=log)
        name = f"after cut {number - 1} of {cuts}" if number > 1 else f"before the first cut, seed {seed}"
        try:
            stand.booted(machine, f"power: boots {name}")
            device = stand.on(machine)
            if asked:
                stand.row(f"power: {name}", functools.partial(_sound, device, asked))
            if number <= cuts:
                asked = [f"cut-{number}-{prompt}" for prompt in range(PROMPTS)]
                part = functools.partial(_cut, device, asked, log, disk, chance)
                if not stand.row(f"power: cut {number}", part):
                    return
        finally:
            machine.cut_power()
        shutil.rmtree(place)


def _cut(device: Device, asked: list[str], log: Path, disk: Path, chance: random.Random) -> str:
    """The disk as the cut leaves it has a file system without a fault, once its journal is replayed."""
    least = _until_mid_answer(device, asked, log)
    time.sleep(chance.uniform(0, LONGEST_SECONDS))
    device.machine.cut_power()
    lost = rebuild(log, disk, chance, least=least)
    subprocess.run(["e2fsck", "-y", "-E", "journal_only", disk], capture_output=True)
    checked = subprocess.run(["e2fsck", "-fn", disk], capture_output=True, text=True)
    show(checked.returncode == 0, f"the file system is not sound: {checked.stdout[-2000:]}")
    return f"{lost.kept} writes kept, {lost.lost} lost, {lost.torn} torn; {lost.later} were yet to come"


def _until_mid_answer(device: Device, asked: list[str], log: Path) -> int:
    """Ask; once all is accepted and an answer has begun, return how many writes there were by then."""
    for id in asked:
        device.requester.ask(id, prompt="Hello", max_tokens=TOKENS)

    def has(type: str, id: str) -> bool:
        return any(frame["type"] == type for frame in device.requester.frames(id))

    device.heard(lambda: all(has("accepted", id) for id in asked), 240)
    least = recorded(log)
    device.heard(lambda: any(has("chunk", id) for id in asked), 240)
    return least


def _sound(device: Device, asked: list[str]) -> str:
    """What was accepted before the cut is answered, and edged finds nothing lost of its journal."""
    frames = device.ends(asked, 300)
    wrong = [frame for frame in frames if frame["type"] != "done"]
    show(not wrong, f"not answered: {wrong}")
    show(not device.requester.events("journal_loss"), "rows of the journal are lost")
    damaged = device.machine.run("journalctl -q -b -u edged.service -o cat | grep -i 'journal is damaged'")
    show(damaged.code != 0, damaged.out)
    return f"{len(frames)} prompts were accepted, all are answered"

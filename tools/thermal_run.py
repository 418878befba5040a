"""Governs the real engine on a made-up board, compressed twenty times, and holds it to what is promised.

    python -m tools.thermal_run MODEL.gguf PICTURE.png

The engine answers without a break. In air of each temperature it is governed from rest, or from the air
before, until it has settled; then spells of the governor and of constant threads and duties take turns, each
constant one at the power that keeps to the target. It prints figures and draws the curves; two minutes.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from tools.curves import Curve, Panel, draw
from tools.thermal.compressed import FACTOR, Course, Trial, trial
from tools.thermal.model import PI4, Device

AIRS = (25, 38)
SETTLING, SETTLED = 300.0, 300.0  # of the board's seconds
SPELL, ROUNDS = 60.0, 4
_CORES = 4  # of the Pi, for which all of this machine's threads stand


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of one temperature of the air.

    Attributes:
        air: it.
        warmest: the chip's highest temperature.
        swing: degrees between its highest and its lowest once it had settled.
        speed: tokens a second, governed, of the spells.
        best: those of the best constant setting.
        setting: its threads and duty.
        course: the governed part before the spells.
    """

    air: float
    warmest: float
    swing: float
    speed: float
    best: float
    setting: tuple[int, float]
    course: Course

    @property
    def share(self) -> float:
        """Return the governor's part of what the best constant setting does."""
        return self.speed / self.best


def device_for(threads: int) -> Device:
    """Return a Pi 4 that so many of this machine's threads warm as four of its own do."""
    factor = PI4.watts(_CORES) / (PI4.shared_watts + PI4.thread_watts * threads)
    return replace(PI4, shared_watts=PI4.shared_watts * factor, thread_watts=PI4.thread_watts * factor)


async def figures(
    made: Trial, device: Device, air: float, *, threads: int, settling: float, settled: float, rounds: int
) -> Figures:
    """Return what becomes of it in air of a temperature."""
    made.board.air = air
    course = await made.governed(settling + settled)
    allowed = device.bearable(air, made.watch.target)
    settings = [(n, min(1.0, allowed / device.watts(n))) for n in range(1, threads + 1)]
    governed: list[float] = []
    constant: dict[tuple[int, float], list[float]] = {setting: [] for setting in settings}
    for _ in range(rounds):
        governed.append((await made.governed(SPELL)).speed)
        for setting in settings:
            spell = await made.constant(*setting, SPELL)
            # What a setting gets done with the power that is allowed, were that a little more or less.
            constant[setting].append(
                spell.speed * (min(1.0, allowed / spell.mean_watts) if setting[1] < 1 else 1)
            )
    speeds = {setting: sum(found) / rounds for setting, found in constant.items()}
    best = max(settings, key=speeds.__getitem__)
    return Figures(
        air=air,
        warmest=max(course.celsius),
        swing=course.since(course.seconds[0] + settling).swing,
        speed=sum(governed) / rounds,
        best=speeds[best],
        setting=best,
        course=course,
    )


async def run(model: Path) -> tuple[float, list[Figures]]:
    """Return the target and the figures of each temperature of the air."""
    threads = 2
    device = device_for(threads)
    with tempfile.TemporaryDirectory(prefix="edged-thermal-") as directory:
        async with trial(model, device, air=AIRS[0], threads=threads, directory=Path(directory)) as made:
            found = [
                await figures(
                    made, device, air, threads=threads, settling=SETTLING, settled=SETTLED, rounds=ROUNDS
                )
                for air in AIRS
            ]
            return made.watch.target, found


def table(target: float, found: Sequence[Figures]) -> str:
    """Return the figures in Markdown."""
    lines = [
        f"Target {target:g} °C, {FACTOR:g} times as fast as a real board:",
        "",
        "| air °C | warmest °C | swing °C | tokens/s | best constant | share |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for each in found:
        threads, duty = each.setting
        best = f"{each.best:.1f} ({threads} threads, {duty:.0%})"
        cells = (f"{each.air:g}", f"{each.warmest:.1f}", f"{each.swing:.1f}", f"{each.speed:.1f}", best)
        lines.append(f"| {' | '.join(cells)} | {each.share:.2f} |")
    return "\n".join(lines)


def picture(path: Path, target: float, found: Sequence[Figures]) -> None:
    """Draw the governed courses, one after the other."""
    begin = 0.0
    minutes: list[float] = []
    for each in found:
        minutes += [begin + (at - each.course.seconds[0]) / 60 for at in each.course.seconds]
        begin = minutes[-1]
    panels = []
    for unit, name, mark in (
        ("chip, °C", "celsius", target),
        ("threads", "threads", None),
        ("duty", "duty", None),
    ):
        values = [value for each in found for value in getattr(each.course, name)]
        panels.append(Panel(unit, [Curve("governed", minutes, values)], mark))
    airs = ", then ".join(f"{each.air:g} °C" for each in found)
    draw(path, f"The real engine on a made-up Pi 4, {FACTOR:g} times as fast; air {airs}", panels)


def main(arguments: Sequence[str]) -> int:
    """Run it, print the figures and draw the curves."""
    if len(arguments) != 2:
        print("usage: python -m tools.thermal_run MODEL.gguf PICTURE.png", file=sys.stderr)
        return 2
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    target, found = asyncio.run(run(Path(arguments[0])))
    print(table(target, found))
    picture(Path(arguments[1]), target, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Runs the governor on a made-up board in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from edged.watch.thermal.governor import Governor, Plant, decide, first
from edged.watch.thermal.reading import Flags, ThermalLimits, ThermalReading
from edged.watch.thermal.threads import assumed_speeds
from tools.thermal.model import FIRMWARE_BEGINS, Board, Device, firmware_clock

LOOK_SECONDS = 1.0
STEP_SECONDS = 0.25
_FINE_STEP_SECONDS = 0.05  # where every step of the engine is followed
_NOISE = 0.25  # degrees, of the thermometer

Sensor = Callable[[float, float], float | None]
"""Gives what the thermometer says, from the time and what is true."""


@dataclass(slots=True)
class Run:
    """What happened, a value for each step of time."""

    seconds: list[float] = field(default_factory=list)
    celsius: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    governors: list[Governor] = field(default_factory=list)

    def since(self, begin: float, end: float = float("inf")) -> Run:
        """Return the part between two times."""
        chosen = [i for i, at in enumerate(self.seconds) if begin <= at < end]
        pick = slice(chosen[0], chosen[-1] + 1)
        return Run(self.seconds[pick], self.celsius[pick], self.tokens[pick], self.governors[pick])

    @property
    def speed(self) -> float:
        """Return the mean tokens a second."""
        return sum(self.tokens) / len(self.tokens)

    @property
    def swing(self) -> float:
        """Return the degrees between the warmest and the coldest moment."""
        return max(self.celsius) - min(self.celsius)

    @property
    def changes_of_threads(self) -> int:
        """Return how often the number of threads changed."""
        return sum(a.decision.threads != b.decision.threads for a, b in pairwise(self.governors))


def plant_of(device: Device, *, most_threads: int = 4) -> Plant:
    """Return what the governor is told of a device: no more than the daemon could tell it."""
    limits = ThermalLimits(soft_limit=FIRMWARE_BEGINS)
    speeds = assumed_speeds(most_threads, memory_bound=device.memory_bound)
    return Plant(limits.target, speeds, most_threads, FIRMWARE_BEGINS)


def simulate(
    device: Device,
    seconds: float,
    *,
    air: Callable[[float], float],
    work: Callable[[float], bool] = lambda _: True,
    sensor: Sensor = lambda _, celsius: celsius,
    noise: float = _NOISE,
    governed: bool = True,
    firmware: bool = True,
    plant: Plant | None = None,
    under_voltage: Callable[[float], bool] = lambda _: False,
    decode_seconds: float | None = None,
    seed: int = 1,
) -> Run:
    """Return what a device does with a request always running, or while there is `work`.

    Args:
        device: which.
        seconds: how long.
        air: the temperature around it, by time.
        work: whether there is a request, by time.
        sensor: the thermometer's faults.
        noise: its random error, in degrees, before it is rounded to its steps.
        governed: whether the governor is in force.
        firmware: whether the firmware throttles.
        plant: what the governor knows; what it would by default.
        under_voltage: whether the supply sags, by time.
        decode_seconds: how long a step of the engine takes, which a rest follows; none: hardly any time.
        seed: of the noise.
    """
    chance = random.Random(seed)
    plant = plant or plant_of(device)
    board = Board(device, air(0.0))
    governor = first(plant)
    full = governor.decision.threads
    run = Run()
    busy_seconds = 0.0
    rest_until = computed_until = 0.0
    step_seconds = STEP_SECONDS if decode_seconds is None else _FINE_STEP_SECONDS
    steps_per_look = round(LOOK_SECONDS / step_seconds)
    for step in range(round(seconds / step_seconds)):
        now = step * step_seconds
        board.air = air(now)
        if governed and step % steps_per_look == 0:
            said = sensor(now, board.chip + chance.gauss(0.0, noise))
            celsius = None if said is None else round(said / device.sensor_step) * device.sensor_step
            flags = Flags(under_voltage=under_voltage(now), soft_limit=board.chip >= FIRMWARE_BEGINS)
            busy = busy_seconds / LOOK_SECONDS
            governor = decide(governor, ThermalReading(celsius, flags), now, plant, busy=busy)
            busy_seconds = 0.0
        threads, duty = (governor.decision.threads, governor.decision.duty) if governed else (full, 1.0)
        if decode_seconds is not None:
            if now >= rest_until:
                computed_until = now + decode_seconds
                rest_until = computed_until + decode_seconds * (1 / duty - 1)
            duty = float(now < computed_until)
        if not work(now):
            duty = 0.0
        clock = firmware_clock(board.chip) if firmware else 1.0
        board.heat(device.watts(threads) * duty * clock**2, step_seconds)
        busy_seconds += duty * step_seconds
        run.seconds.append(now)
        run.celsius.append(board.chip)
        run.tokens.append(device.speeds[threads - 1] * duty * clock)
        run.governors.append(governor)
    return run


def steps(*levels: tuple[float, float]) -> Callable[[float], float]:
    """Return a function of time that has each value from its time on: (0, 20), (600, 35)."""
    return lambda now: [value for at, value in levels if at <= now][-1]


def airs(least: int = -10, most: int = 50, step: int = 10) -> Sequence[int]:
    """Return the temperatures of the air that are tried."""
    return range(least, most + 1, step)

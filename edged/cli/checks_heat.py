"""How hot the machine is, and whether its power supply is enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edged.cli.checks import Check
from edged.watch.thermal.reading import Flags
from edged.watch.thermal.sensors import ThermalSensors
from edged.watch.thermal.vcgencmd import Vcgencmd

_HOT = 80.0  # °C: a Raspberry Pi begins to throttle
_COOL = "cool the board: a fan, a heat sink, more air"
_POWER = "use a power supply and a cable that give enough: 5 V, 3 A (Raspberry Pi 5: 5 A)"
_FLAGS = {
    "under_voltage": ("under-voltage", _POWER),
    "throttled": ("throttled", "cool the board, and see to its power supply"),
    "soft_limit": ("at the soft limit of temperature", _COOL),
}


def heat_checks(root: Path) -> Iterator[Check]:
    """Judge the sensors of temperature and voltage below a root of the file system."""
    sensors = ThermalSensors(root, Vcgencmd(root))
    reading, limits = sensors.read(), sensors.limits()
    if reading.flags is not None:
        yield from _power(reading.flags)
    if reading.celsius is None:
        says = "no sensor of temperature is readable, as in virtual machines and containers"
        yield Check("heat", "ok", says)
        return
    says = f"the processor has {reading.celsius:.1f} °C; edged keeps it below {limits.target:g} °C by default"
    if reading.celsius >= min(_HOT, limits.soft_limit or _HOT):
        yield Check("heat", "warn", says, f"{_COOL}; or lower engine.threads")
    else:
        yield Check("heat", "ok", says)


def _power(flags: Flags) -> Iterator[Check]:
    """Judge what a Raspberry Pi's firmware tells."""
    for name, (what, remedy) in _FLAGS.items():
        if getattr(flags, name):
            yield Check("power", "warn", f"{what} now, says the firmware", remedy)
        elif name in flags.seen:
            yield Check("power", "warn", f"{what} at some time since the boot, says the firmware", remedy)

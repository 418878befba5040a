"""How hot the machine is, and whether its power supply is enough."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edged.cli.checks import Check
from edged.cli.kernel_files import number, text

_HOT = 80.0  # °C: a Raspberry Pi begins to throttle
_COLDEST, _HOTTEST = -40.0, 200.0  # beyond them a sensor is broken
_COOL = "cool the board: a fan, a heat sink, more air"
_POWER = "use a power supply and a cable that give enough: 5 V, 3 A (Raspberry Pi 5: 5 A)"
_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
_NOW = {
    0: ("under-voltage", _POWER),
    2: ("throttled", "cool the board, and see to its power supply"),
    3: ("at the soft limit of temperature", _COOL),
}
_SINCE_BOOT = 16  # these bits come again here


def heat_checks(root: Path) -> Iterator[Check]:
    """Judge the sensors of temperature and voltage below a root of the file system."""
    yield from _power(root)
    sensors = _zones(root) or _chips(root)
    if not sensors:
        says = "no sensor of temperature is readable, as in virtual machines and containers"
        yield Check("heat", "ok", says)
        return
    says = ", ".join(f"{name} {celsius:.1f} °C" for name, celsius in sensors)
    if max(celsius for _, celsius in sensors) >= _HOT:
        yield Check("heat", "warn", says, f"{_COOL}; or lower engine.threads")
    else:
        yield Check("heat", "ok", says)


def _zones(root: Path) -> list[tuple[str, float]]:
    found = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    return [reading for zone in found for reading in _reading(zone / "temp", zone / "type")]


def _chips(root: Path) -> list[tuple[str, float]]:
    found = sorted((root / "sys/class/hwmon").glob("hwmon*/temp*_input"))
    return [reading for sensor in found for reading in _reading(sensor, sensor.parent / "name")]


def _reading(sensor: Path, name: Path) -> list[tuple[str, float]]:
    millidegrees = number(sensor)
    if millidegrees is None or not _COLDEST < millidegrees / 1000 < _HOTTEST:
        return []
    return [(text(name).strip() or sensor.parent.name, millidegrees / 1000)]


def _power(root: Path) -> Iterator[Check]:
    """Judge what a Raspberry Pi's firmware tells."""
    try:
        bits = int(text(root / _THROTTLED).strip(), 16)
    except ValueError:
        chips = (root / "sys/class/hwmon").glob("hwmon*")
        if any(text(c / "name").strip() == "rpi_volt" and number(c / "in0_lcrit_alarm") for c in chips):
            yield Check("power", "warn", "under-voltage now, says the firmware", _POWER)
        return
    for bit, (what, remedy) in _NOW.items():
        if bits >> bit & 1:
            yield Check("power", "warn", f"{what} now, says the firmware", remedy)
        elif bits >> (bit + _SINCE_BOOT) & 1:
            yield Check("power", "warn", f"{what} at some time since the boot, says the firmware", remedy)

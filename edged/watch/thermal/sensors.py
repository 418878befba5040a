"""Reads heat and power from what the kernel shows; every source may be missing or garbled."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from edged.watch.readings import number, text, whole
from edged.watch.thermal.reading import Flags, ThermalLimits, ThermalReading

_FLAGS = ("under_voltage", "capped", "throttled", "soft_limit")  # bits 0 to 3; 16 to 19 since the boot
_SINCE_BOOT = 16
_FLAG_FILES = "sys/devices/platform/soc*/soc*:firmware/get_throttled"
_PROCESSOR = re.compile("cpu|soc|pkg|core|k10temp", re.IGNORECASE)
_PLAUSIBLE = (-40.0, 125.0)  # degrees: what a processor that still computes can have
_LOWEST_TRIP = 30.0  # some kernels show trips of 0 that mean nothing
_SOFT_LIMIT_MODELS = re.compile("Raspberry Pi 3 Model [AB] Plus")
_FIRMWARE_LIMIT = 80.0  # of every other Pi: 5 below temp_limit
_SOFT_LIMIT = 60.0  # of those two, unless config.txt says otherwise
_BELOW_TEMP_LIMIT = 5.0
_CONFIG = re.compile(r"^\s*(temp_limit|temp_soft_limit)\s*=\s*(\d{1,3})\s*$", re.MULTILINE)


class ThermalSensors:
    """The processor's temperature and frequency, the fan, the firmware's flags and a power meter.

    Args:
        root: where /proc, /sys and /boot are found.
        ask_firmware: gives the flags' number where no file does; None: there is nobody to ask.
    """

    def __init__(self, root: Path = Path("/"), ask_firmware: Callable[[], int | None] = lambda: None) -> None:
        self._root = root
        self._ask_firmware = ask_firmware
        self._zones = self._find_zones()

    def read(self) -> ThermalReading:
        """Return what is known now."""
        return ThermalReading(
            celsius=self.celsius(),
            flags=self._flags(),
            megahertz=self._megahertz(),
            fan_rpm=next(self._hwmon("fan1_input"), None),
            watts=_first(watts / 1e6 for watts in self._hwmon("power1_input")),
        )

    def celsius(self) -> float | None:
        """Return the temperature of the processor's hottest zone; this alone is cheap."""
        found = [found for path in self._zones if (found := _celsius(path)) is not None]
        if not found:
            self._zones = (
                self._find_zones()
            )  # a driver may have come, or gone and come back under another number
        return max(found, default=None)

    def limits(self) -> ThermalLimits:
        """Return where kernel and firmware begin to slow the processor down."""
        passive = [
            celsius
            for zone in {path.parent for path in self._zones}
            for kind in zone.glob("trip_point_*_type")
            if (text(kind) or "").strip() == "passive"
            and (celsius := _celsius(kind.with_name(kind.name.replace("_type", "_temp")))) is not None
            and celsius >= _LOWEST_TRIP
        ]
        return ThermalLimits(min(passive, default=None), self._firmware_limit())

    def _find_zones(self) -> list[Path]:
        zones = sorted(self._root.glob("sys/class/thermal/thermal_zone*/temp"))
        chosen = [path for path in zones if _PROCESSOR.search(text(path.with_name("type")) or "")] or zones
        if any(_celsius(path) is not None for path in chosen):
            return chosen
        chips = sorted(self._root.glob("sys/class/hwmon/hwmon*/temp1_input"))
        return [path for path in chips if _PROCESSOR.search(text(path.with_name("name")) or "")] or chosen

    def _firmware_limit(self) -> float | None:
        try:
            model = (self._root / "proc/device-tree/model").read_text("utf-8", "replace")
        except OSError:
            return None
        if "Raspberry Pi" not in model:
            return None
        has_soft_limit = _SOFT_LIMIT_MODELS.search(model) is not None
        found = [_SOFT_LIMIT if has_soft_limit else _FIRMWARE_LIMIT]
        for name in ("boot/firmware/config.txt", "boot/config.txt"):
            given = [(key, float(value)) for key, value in _CONFIG.findall(text(self._root / name) or "")]
            if has_soft_limit and (soft := [value for key, value in given if key == "temp_soft_limit"]):
                found = soft
            found += [value - _BELOW_TEMP_LIMIT for key, value in given if key == "temp_limit"]
        return min(found)

    def _flags(self) -> Flags | None:
        for path in self._root.glob(_FLAG_FILES):
            if (bits := _hexadecimal(text(path))) is not None:
                return flags(bits)
        for chip in self._root.glob("sys/class/hwmon/hwmon*/name"):
            if (text(chip) or "").strip() == "rpi_volt":
                alarm = number(chip.with_name("in0_lcrit_alarm"))
                return Flags(under_voltage=alarm == 1) if alarm in (0, 1) else None
        asked = self._ask_firmware()
        return flags(asked) if asked is not None else None

    def _megahertz(self) -> float | None:
        policies = sorted(self._root.glob("sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq"))
        found = [kilohertz for path in policies if (kilohertz := number(path))]
        return max(found) / 1000 if found else None

    def _hwmon(self, name: str) -> Iterator[int]:
        for path in sorted(self._root.glob(f"sys/class/hwmon/hwmon*/{name}")):
            if (value := number(path)) is not None:
                yield value


def flags(bits: int) -> Flags:
    """Return what the firmware's number says."""
    now = {name: bool(bits >> bit & 1) for bit, name in enumerate(_FLAGS)}
    seen = frozenset(name for bit, name in enumerate(_FLAGS) if bits >> (bit + _SINCE_BOOT) & 1)
    return Flags(**now, seen=seen)


def _celsius(path: Path) -> float | None:
    word = (text(path) or "").strip()
    size = whole(word.removeprefix("-"))
    if size is None:
        return None
    celsius = (-size if word.startswith("-") else size) / 1000
    return celsius if _PLAUSIBLE[0] <= celsius <= _PLAUSIBLE[1] else None


def _hexadecimal(word: str | None) -> int | None:
    word = (word or "").strip().removeprefix("0x")
    return int(word, 16) if re.fullmatch("[0-9a-fA-F]{1,8}", word) else None


def _first(values: Iterable[float]) -> float | None:
    return next(iter(values), None)

"""Reads of the machine what no watch looks at: board, zones, disk, network, energy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from edged.telemetry.snapshot import Device
from edged.watch.readings import number, text

_BOARDS = ("proc/device-tree/model", "sys/class/dmi/id/product_name")
_METERS = "sys/class/powercap/intel-rapl:?"  # of whole processors; their parts have a further number
_MOST_ZONES = 32
_MOST_GAP_SECONDS = 300.0  # between two looks at the power, for energy to be reckoned from it


def board(root: Path) -> str | None:
    """Return the device's model as the firmware calls it."""
    for name in _BOARDS:
        if found := (text(root / name) or "").strip("\0\n "):
            return found
    return None


def zones(root: Path) -> dict[str, float]:
    """Return the temperature of every zone that the kernel shows, in degrees Celsius."""
    found: dict[str, float] = {}
    paths = root.glob("sys/class/thermal/thermal_zone*")
    for path in sorted(paths, key=lambda path: (len(path.name), path.name))[:_MOST_ZONES]:
        word = (text(path / "temp") or "").strip()
        if not word.removeprefix("-").isdigit():
            continue
        kind = (text(path / "type") or "").strip() or path.name
        name = next(name for name in _names(kind) if name not in found)
        found[name] = int(word) / 1000
    return found


def device(state_dir: Path) -> Device:
    """Return what is known of the machine."""
    load, disk, network = _load(), _disk(state_dir), _network()
    return Device(
        uptime_seconds=round(time.clock_gettime(time.CLOCK_BOOTTIME), 1),
        load1=load[0] if load else None,
        load5=load[1] if load else None,
        load15=load[2] if load else None,
        disk_free_bytes=disk[0] if disk else None,
        disk_size_bytes=disk[1] if disk else None,
        network_received_bytes_total=network[0] if network else None,
        network_sent_bytes_total=network[1] if network else None,
    )


class EnergyMeter:
    """Adds up the energy that was taken since it was made.

    Args:
        root: where /sys is found.
        clock: gives monotonic seconds.
    """

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counters = {
            path: [number(path / "max_energy_range_uj") or 0, now]
            for path in root.glob(_METERS)
            if (now := number(path / "energy_uj")) is not None
        }
        self._looked: tuple[float, float] | None = None  # when, and at how many watts
        self._joules: float | None = 0.0 if self._counters else None

    def joules(self, watts: float | None) -> float | None:
        """Return the energy so far; None where nothing measures it.

        Args:
            watts: the power now, for devices without a meter of energy.
        """
        if self._counters:
            self._joules = (self._joules or 0.0) + sum(map(self._taken, self._counters)) / 1e6
        elif watts is not None:
            self._reckon(watts)
        return round(self._joules, 3) if self._joules is not None else None

    def _taken(self, path: Path) -> int:
        size, before = self._counters[path]
        now = number(path / "energy_uj")
        if now is None:
            return 0
        self._counters[path][1] = now
        return now - before if now >= before else max(0, now - before + size)  # it has begun anew

    def _reckon(self, watts: float) -> None:
        now, before = self._clock(), self._looked
        self._looked = now, watts
        self._joules = self._joules or 0.0
        if before is not None and (seconds := now - before[0]) <= _MOST_GAP_SECONDS:
            self._joules += seconds * (watts + before[1]) / 2


def _names(kind: str) -> list[str]:
    return [kind, *(f"{kind}-{count}" for count in range(2, _MOST_ZONES + 1))]


def _load() -> tuple[float, float, float] | None:
    try:
        return os.getloadavg()
    except OSError:
        return None


def _disk(path: Path) -> tuple[int, int] | None:
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def _network() -> tuple[int, int] | None:
    try:
        found = psutil.net_io_counters(pernic=True, nowrap=False)
    except (OSError, RuntimeError, psutil.Error):
        return None
    cards = [card for name, card in found.items() if name != "lo"]
    return (sum(card.bytes_recv for card in cards), sum(card.bytes_sent for card in cards)) if cards else None

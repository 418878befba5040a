"""Which sources of memory's state are live on this machine, and how the others are turned on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from edged.watch.memory.reading import MemoryReading
from edged.watch.memory.sensors import GROUP_PRESSURE, MACHINE_PRESSURE, MemorySensors, pressure
from edged.watch.readings import text

_CMDLINES = ("boot/firmware/cmdline.txt", "boot/cmdline.txt")  # of Raspberry Pi OS, the newer one first


class Source(NamedTuple):
    """One source.

    Attributes:
        name: what it is.
        live: whether it can be read here.
        says: what was found, in one line.
        parameter: of the kernel's command line, which turns it on; None where none does.
    """

    name: str
    live: bool
    says: str
    parameter: str | None = None


def sources(root: Path = Path("/")) -> tuple[Source, ...]:
    """Look at every source there may be."""
    sensors = MemorySensors(root)
    reading = sensors.read()
    directory = sensors.group.directory
    return (
        _machine(reading),
        _pressure("pressure", root / MACHINE_PRESSURE, "psi=1"),
        _group(sensors),
        _pressure("cgroup pressure", directory / GROUP_PRESSURE if directory else None),
        _zram(reading),
    )


def remedy(found: Iterable[Source], root: Path = Path("/")) -> str | None:
    """Return in one line what turns on the sources that are off; None where nothing need or can be done."""
    parameters = " ".join(dict.fromkeys(one.parameter for one in found if one.parameter))
    if not parameters:
        return None
    file = next((f"/{path}" for path in _CMDLINES if text(root / path) is not None), None)
    place = f"the one line of {file}" if file else "the kernel's command line"
    return f"append to {place}, and reboot: {parameters}"


def _machine(reading: MemoryReading | None) -> Source:
    if reading is None:
        return Source("meminfo", False, "/proc/meminfo can't be read: memory is not watched")
    return Source("meminfo", True, f"{_mega(reading.machine.total)} in all")


def _pressure(name: str, path: Path | None, parameter: str | None = None) -> Source:
    if path is not None and (found := pressure(path)):
        return Source(name, True, f"some {found.some:g} %, full {found.full:g} %")
    return Source(name, False, "the kernel does not measure it", parameter)


def _group(sensors: MemorySensors) -> Source:
    group = sensors.group
    if group.version == 1:
        says = "memory is counted by cgroup version 1, which is not used"
        return Source("cgroup", False, says, "systemd.unified_cgroup_hierarchy=1")
    if group.version is None:
        return Source("cgroup", False, "this process is in no control group that can be seen")
    if found := group.read():
        limit = "no limit" if found.limit is None else f"limit {_mega(found.limit)}"
        return Source("cgroup", True, f"{_mega(found.current)} taken, {limit}")
    if group.counts_memory:
        return Source("cgroup", False, "memory is not counted for this group (MemoryAccounting=yes does)")
    return Source("cgroup", False, "the memory cgroup is off", "cgroup_enable=memory")


def _zram(reading: MemoryReading | None) -> Source:
    if reading is None or reading.zram is None:
        return Source("zram", False, "no swap in compressed memory")
    zram = reading.zram
    return Source("zram", True, f"{_mega(zram.stored)} stored in {_mega(zram.used)}; counted as no memory")


def _mega(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"

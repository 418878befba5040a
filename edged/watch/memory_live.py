"""Which sources of memory's state are live on this machine, and how the others are turned on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from edged.watch.memory_sensors import MACHINE_PRESSURE, MemorySensors, pressure
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
    if reading is None:
        machine = Source("meminfo", False, "/proc/meminfo can't be read: memory is not watched")
        zram = None
    else:
        machine = Source("meminfo", True, f"{_mega(reading.machine.total)} in all")
        zram = reading.zram
    return (
        machine,
        _pressure(root),
        _group(sensors),
        _group_pressure(sensors),
        Source("zram", True, f"{_mega(zram.stored)} stored in {_mega(zram.used)}; counted as no memory")
        if zram
        else Source("zram", False, "no swap in compressed memory"),
    )


def remedy(found: Iterable[Source], root: Path = Path("/")) -> str | None:
    """Return in one line what turns on the sources that are off; None where nothing need or can be done."""
    parameters = " ".join(dict.fromkeys(one.parameter for one in found if one.parameter))
    if not parameters:
        return None
    file = next((f"/{path}" for path in _CMDLINES if text(root / path) is not None), None)
    place = f"the one line of {file}" if file else "the kernel's command line"
    return f"append to {place}, and reboot: {parameters}"


def _pressure(root: Path) -> Source:
    if found := pressure(root / MACHINE_PRESSURE):
        return Source("pressure", True, f"some {found.some:g} %, full {found.full:g} %")
    return Source("pressure", False, "the kernel does not measure it (PSI is off)", "psi=1")


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


def _group_pressure(sensors: MemorySensors) -> Source:
    reading = sensors.read()
    if reading is not None and (found := reading.group_pressure):
        return Source("cgroup pressure", True, f"some {found.some:g} %, full {found.full:g} %")
    return Source("cgroup pressure", False, "not measured for this group")


def _mega(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"

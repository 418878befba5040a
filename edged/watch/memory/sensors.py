"""Reads memory from what the kernel shows; every source but /proc/meminfo may be missing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edged.watch.memory.group import ControlGroup
from edged.watch.memory.reading import EngineMemory, Machine, MemoryReading, Pressure, Zram
from edged.watch.readings import counts, text, whole

MACHINE_PRESSURE = "proc/pressure/memory"
GROUP_PRESSURE = "memory.pressure"
SLOW_SECONDS = 1.0
"""How old what changes slowly may be: pressure, bounds, swap; the kernel averages some of it over more."""
_MAJOR_FAULTS = 9  # which word of /proc/<pid>/stat, after the name in brackets
_STORED, _USED = 0, 2  # which words of /sys/block/zram*/mm_stat


class MemorySensors:
    """The machine's memory, its pressure, the control group and the engine.

    Attributes:
        group: the daemon's control group.

    Args:
        root: where /proc and /sys are found.
        clock: gives monotonic seconds.
    """

    def __init__(self, root: Path = Path("/"), *, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._proc = str(root / "proc")  # joining paths would cost more than reading the files
        self._clock = clock
        self._slow: MemoryReading | None = None
        self._slow_at = 0.0
        self._disk_swap_free = 0
        self.group = ControlGroup(root)

    def read(self, engine_pid: int | None = None) -> MemoryReading | None:
        """Return what is known now; None if /proc/meminfo can't be understood.

        What changes slowly is as of the last second.
        """
        now, slow = self._clock(), self._slow
        is_old = slow is None or not 0 <= now - self._slow_at < SLOW_SECONDS
        if is_old:
            self._disk_swap_free = self._read_disk_swap()
        machine = self._machine()
        if machine is None:
            return None
        if slow is None or is_old:
            slow, self._slow_at = self._read_slowly(machine), now
        elif slow.group:
            slow = replace(slow, group=self.group.renewed(slow.group))
        self._slow = slow
        engine = self._engine(engine_pid) if engine_pid is not None else None
        return replace(slow, machine=machine, engine=engine)

    def proportional_bytes(self, pid: int) -> int | None:
        """Return a process's share of memory, shared pages divided among their users (PSS).

        The kernel walks the page tables for it, which takes milliseconds: not to be asked for often.
        """
        return counts(f"{self._proc}/{pid}/smaps_rollup", "Pss").get("Pss")

    def zram(self) -> Zram | None:
        """Return what all swap in compressed memory comes to; None where there is none."""
        found = []
        for path in self._root.glob("sys/block/zram*/mm_stat"):
            words = [whole(word) for word in (text(path) or "").split()]
            stored, used = (words[_STORED], words[_USED]) if len(words) > _USED else (None, None)
            if stored is not None and used is not None:
                found.append((stored, used))
        return Zram(sum(stored for stored, _ in found), sum(used for _, used in found)) if found else None

    def _read_slowly(self, machine: Machine) -> MemoryReading:
        directory = self.group.directory
        return MemoryReading(
            machine=machine,
            group=self.group.read(),
            machine_pressure=pressure(self._root / MACHINE_PRESSURE),
            group_pressure=pressure(directory / GROUP_PRESSURE) if directory else None,
            zram=self.zram() if machine.swap_free != machine.disk_swap_free else None,
        )

    def _machine(self) -> Machine | None:
        found = counts(f"{self._proc}/meminfo", "MemTotal", "MemAvailable", "SwapFree")
        total, available = found.get("MemTotal", 0), found.get("MemAvailable")
        if not total or available is None or available > total:
            return None
        swap_free = found.get("SwapFree", 0)
        return Machine(total, available, swap_free, min(swap_free, self._disk_swap_free))

    def _read_disk_swap(self) -> int:
        """Return what is free of the swap that is no memory itself; what can't be understood is none."""
        free = 0
        for line in (text(f"{self._proc}/swaps") or "").splitlines()[1:]:
            name, _, *sizes = [*line.split(), "", "", "", ""][:4]
            size, used = map(whole, sizes)
            if size is not None and used is not None and "zram" not in name:
                free += max(0, size - used) * 1024
        return free

    def _engine(self, pid: int) -> EngineMemory | None:
        status = counts(f"{self._proc}/{pid}/status", "RssAnon", "RssFile", "VmSwap")
        anonymous = status.get("RssAnon")
        if anonymous is None:  # it has ended
            return None
        words = (text(f"{self._proc}/{pid}/stat") or "").rpartition(")")[2].split()
        faults = whole(words[_MAJOR_FAULTS]) if len(words) > _MAJOR_FAULTS else None
        return EngineMemory(pid, anonymous, status.get("RssFile", 0), status.get("VmSwap", 0), faults or 0)


def pressure(path: Path) -> Pressure | None:
    """Return how long memory was waited for of late; None where the kernel does not measure it."""
    shares = {}
    for line in (text(path) or "").splitlines():
        kind, _, rest = line.partition(" avg10=")
        percent = _percent(rest.partition(" ")[0])
        if percent is not None:
            shares[kind] = percent
    return Pressure(shares["some"], shares.get("full", 0.0)) if "some" in shares else None


def _percent(word: str) -> float | None:
    hundredths = whole(word.replace(".", "", 1))
    return (
        hundredths / 100 if hundredths is not None and hundredths <= 100_00 and word[-3:-2] == "." else None
    )

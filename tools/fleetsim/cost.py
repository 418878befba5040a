"""What processes cost: seconds of processor and bytes of memory, from the kernel's own counts."""

from __future__ import annotations

import time

import psutil


class Cost:
    """The cost of one process from now on.

    Args:
        pid: the process.
    """

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self.restart()

    def restart(self) -> None:
        """Measure from now on."""
        self._began, self._used = time.monotonic(), self._seconds()

    @property
    def cores(self) -> float:
        """The mean share of one core."""
        return (self._seconds() - self._used) / max(1e-9, time.monotonic() - self._began)

    @property
    def memory_bytes(self) -> int:
        """Resident memory now."""
        return int(self._process.memory_info().rss)

    def told(self) -> str:
        """Return both in words."""
        return f"{100 * self.cores:.1f} % of a core, {self.memory_bytes / 1e6:.0f} MB"

    def _seconds(self) -> float:
        times = self._process.cpu_times()
        return float(times.user + times.system)

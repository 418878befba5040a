"""How long a process was kept from the cores by others: it is slow then, not hung."""

from __future__ import annotations

import contextlib
from pathlib import Path


class CoreWaits:
    """Tells how long the threads of a process wait for a core.

    Args:
        pid: the process.
        proc: where the kernel tells of it; each thread's `schedstat` has the nanoseconds of waiting in its
            second field (Documentation/scheduler/sched-stats.rst).
    """

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        self._tasks = proc / str(pid) / "task"
        self._before = self._read()

    def more(self) -> float:
        """Return for how many seconds the thread that waited longest did so since the last time.

        Others may wait for that one. 0 where the kernel does not count.
        """
        before, self._before = self._before, self._read()
        return max((now - before.get(thread, 0) for thread, now in self._before.items()), default=0) / 1e9

    def _read(self) -> dict[str, int]:
        found = {}
        with contextlib.suppress(OSError):
            for task in self._tasks.iterdir():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    found[task.name] = int((task / "schedstat").read_text().split()[1])
        return found

"""What core and engine do for the thermal watch, and what it knows of the engine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edged.core import Core
from edged.engine.client import Engine
from edged.errors import EdgedError, ErrorCode
from edged.models.sizing import is_memory_bound
from edged.watch.readings import text
from edged.watch.thermal.threads import assumed_speeds, counted_speeds
from edged.watch.thermal.watch import EngineFacts, Happening

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_USER_TIME, _SYSTEM_TIME = 11, 12  # fields of /proc/<pid>/stat, counted after the name


class ThermalActions:
    """Has core and engine act.

    Args:
        core: what acts, its engine included.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def tune(self, threads: int, threads_batch: int, duty: float) -> None:
        """Have the engine use so many threads, for this share of the time."""
        self._core.engine.tune(threads, threads_batch, duty)

    def refuse(self, reason: str | None, retry_after_s: float) -> None:
        """Refuse new requests as too_hot, or admit them again."""
        error = None
        if reason is not None:
            says = f"the device is too hot: {reason}; ask again later, and cool it (a fan, a heat sink, air)"
            error = EdgedError(ErrorCode.TOO_HOT, says, retry_after_s=retry_after_s)
        self._core.admission.too_hot = error

    def tell(self, happening: Happening, figures: Mapping[str, Any]) -> None:
        """Tell what has happened, to the log and to operators."""
        self._core.events.emit(happening, **figures)


class EngineWatched:
    """Tells the thermal watch of the engine.

    Args:
        engine: which.
        root: where /proc is found.
    """

    def __init__(self, engine: Engine, root: Path) -> None:
        self._engine = engine
        self._root = root
        self._memory_bound = is_memory_bound(root)

    def __call__(self) -> EngineFacts:
        """Return what is known now; before there is a plan, of an engine of one thread."""
        engine = self._engine
        if engine.plan is None:
            return EngineFacts(None, (1.0,), 1)
        load = engine.plan.load
        pid = engine.supervisor.pid
        speeds = engine.speeds or assumed_speeds(load.threads, memory_bound=self._memory_bound)
        return EngineFacts(
            seconds=processor_seconds(pid, self._root) if pid is not None else None,
            speeds=counted_speeds(speeds, fixed=load.deterministic),
            threads_batch=load.threads_batch,
        )


def processor_seconds(pid: int, root: Path = Path("/")) -> float | None:
    """Return the processor time that a process has taken; None where that can't be read."""
    fields = (text(root / f"proc/{pid}/stat") or "").rpartition(")")[2].split()
    try:
        ticks = int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])
    except (IndexError, ValueError):
        return None
    return ticks / _TICKS_A_SECOND

"""The watches over the machine's means: held and run in one place, and told of in one part of the status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from edged.core import Core
from edged.engine.plan import Planner
from edged.watch.memory.acting import MemoryActions, engine_facts
from edged.watch.memory.live import sources
from edged.watch.memory.refit import Refit
from edged.watch.memory.sensors import MemorySensors
from edged.watch.memory.watch import MemoryWatch
from edged.watch.thermal.acting import EngineWatched, ThermalActions
from edged.watch.thermal.sensors import ThermalSensors
from edged.watch.thermal.vcgencmd import Vcgencmd
from edged.watch.thermal.watch import ThermalWatch


class Watch(Protocol):
    """One of them."""

    async def run(self) -> None:
        """Watch until cancelled."""

    def fields(self) -> dict[str, Any]:
        """Return what the status tells of it."""


class Watches:
    """Runs the watches, and has core and engine act on what they find.

    Attributes:
        memory: over what the machine has left of it.
        thermal: over heat and power.

    Args:
        core: what acts, its engine included.
        planner: says how the model would be loaded.
        exit: ends the daemon for the reason given.
        root: where /proc and /sys are found.
    """

    def __init__(
        self, core: Core, planner: Planner, exit: Callable[[str], None], *, root: Path = Path("/")
    ) -> None:
        table = core.settings.watch
        refit = Refit(core, lambda freed: planner.plan(freed_bytes=freed), lambda: self.memory.freed_bytes)
        self.memory = MemoryWatch(
            table.memory,
            MemorySensors(root),
            MemoryActions(core, refit, exit),
            lambda: engine_facts(core),
            sources=sources(root),
            idle_unload_seconds=core.settings.engine.idle_unload_seconds,
        )
        core.shortage.retry_after = lambda: self.memory.retry_after_seconds
        self.thermal = ThermalWatch(
            table.thermal,
            ThermalSensors(root, Vcgencmd(root)),
            ThermalActions(core),
            EngineWatched(core.engine, root),
        )
        self._watches: dict[str, Watch] = {"memory": self.memory, "thermal": self.thermal}
        core.status_parts["watch"] = self._fields

    async def run(self) -> None:
        """Watch until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name, watch in self._watches.items():
                tasks.create_task(watch.run(), name=f"{name} watch")

    def _fields(self) -> dict[str, Any]:
        return {name: watch.fields() for name, watch in self._watches.items()}

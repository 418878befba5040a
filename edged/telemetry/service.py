"""Telemetry as the rest of edged sees it: the snapshot, the alarms and the history, kept up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from edged.telemetry.alarms import Alarms
from edged.telemetry.collect import Collector, MemorySource, ThermalSource
from edged.telemetry.history import History

if TYPE_CHECKING:
    from edged.core import Core
    from edged.telemetry.snapshot import Snapshot

_log = structlog.get_logger(__name__)

LOOK_SECONDS = 10.0
"""How often alarms are judged."""
HISTORY_FILE = "history"


class Telemetry:
    """Looks at everything now and then, and whenever somebody asks.

    Attributes:
        alarms: what is wrong for now.
        history: what was; None where none is kept.

    Args:
        core: the daemon.
        memory: the watch over memory.
        thermal: the watch over heat.
        root: where /proc and /sys are found.
    """

    def __init__(
        self, core: Core, *, memory: MemorySource, thermal: ThermalSource, root: Path = Path("/")
    ) -> None:
        self._core = core
        self.alarms = Alarms(lambda: core.settings.telemetry.alarm_hold_seconds)
        self.alarms.listeners.append(self._tell)
        self._collector = Collector(
            core, memory=memory, thermal=thermal, alarms=lambda: self.alarms.raised, root=root
        )
        self.history: History | None = None
        if hours := core.settings.telemetry.history_hours:
            self.history = History(core.settings.state_dir / HISTORY_FILE, clock=core.clock, hours=hours)

    def snapshot(self) -> Snapshot:
        """Look at everything now."""
        return self._collector.snapshot()

    async def run(self) -> None:
        """Judge alarms and keep the history, until cancelled; what waits is written then."""
        try:
            while True:
                await asyncio.sleep(LOOK_SECONDS)
                try:
                    await self._look()
                except Exception:
                    # Telemetry may fail, the service may not.
                    _log.exception("the telemetry could not be kept up")
        finally:
            if self.history is not None:
                self.history.write()

    async def _look(self) -> None:
        snapshot = self.snapshot()
        self.alarms.judge(snapshot)
        if self.history is not None and self.history.take(snapshot):
            await asyncio.to_thread(self.history.write)

    def _tell(self, type: str, is_raised: bool) -> None:
        self._core.events.emit("alarm", alarm=type, raised=is_raised)

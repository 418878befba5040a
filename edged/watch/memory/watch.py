"""Watches over memory: reads, decides, and asks core and engine for what the level wants."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from edged.engine.supervision.oom import Memory, memory
from edged.settings.watch import MemoryTable
from edged.watch.memory.actions import Actions
from edged.watch.memory.bounds import Level
from edged.watch.memory.growth import EngineFacts, GrowthGuard
from edged.watch.memory.live import Source
from edged.watch.memory.policy import DWELL, LEAST_PERIOD, MemoryPolicy, MemoryState
from edged.watch.memory.reading import MemoryReading
from edged.watch.memory.words import figures, reason

EVICT_SECONDS = 5.0
"""An engine whose memory is not free by then is told of."""
PROPORTIONAL_SECONDS = 60.0
"""How often the engine's share of memory is asked for, which takes the kernel milliseconds."""


class Sensors(Protocol):
    """What reads memory."""

    def read(self, engine_pid: int | None = None) -> MemoryReading | None:
        """Return what is known now; None if that is nothing."""

    def proportional_bytes(self, pid: int) -> int | None:
        """Return a process's share of memory."""


class MemoryWatch:
    """Keeps the level of memory and what follows from it.

    Attributes:
        state: what was decided last.
        engine_proportional_bytes: the engine's share of memory, as of the last minute; None if not known.

    Args:
        table: the thresholds.
        sensors: what reads memory.
        actions: who acts.
        engine: tells of the engine.
        sources: which sources there are.
        idle_unload_seconds: after so long without requests the model leaves memory; None: it stays.
        clock: gives monotonic seconds.
    """

    def __init__(
        self,
        table: MemoryTable,
        sensors: Sensors,
        actions: Actions,
        engine: Callable[[], EngineFacts],
        *,
        sources: Iterable[Source] = (),
        idle_unload_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state = MemoryState()
        self.engine_proportional_bytes: int | None = None
        self._policy = MemoryPolicy(table)
        self._sensors = sensors
        self._actions = actions
        self._engine = engine
        self._live = [source.name for source in sources if source.live]
        self._idle_unload_seconds = idle_unload_seconds
        self._clock = clock
        self._growth = GrowthGuard(table.engine_growth_bytes)
        self._evicted = False  # the engine was ended, and is not to come back yet
        self._leaving: tuple[int | None, float] | None = None  # the engine that is to end, and since when
        self._held_told = False
        self._proportional_at = -math.inf

    @property
    def level(self) -> Level:
        """Return how short memory is."""
        return self.state.level

    @property
    def freed_bytes(self) -> int:
        """Return what the engine's end would free, as of the last reading."""
        return self.state.reading.anonymous if self.state.reading else 0

    def memory(self) -> Memory:
        """Read how much there is in all, and may be taken now without becoming short of it."""
        reading = self._sensors.read()
        return Memory(reading.total, self._policy.room(reading)) if reading else memory()

    @property
    def retry_after_seconds(self) -> int:
        """Return after how long a refused request may be let in, at the earliest; 0 if it may now."""
        if self.level < Level.SHED:
            return 0
        calm = 0.0 if self.state.calm_since is None else self._clock() - self.state.calm_since
        below = sum(DWELL[level] for level in Level if Level.SHED <= level < self.level)
        return max(1, math.ceil(self.state.dwell - calm + below))

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            seconds = self.step()
            await asyncio.sleep(seconds)

    def step(self) -> float:
        """Read, decide and act; return how many seconds it is until the next time."""
        now, facts = self._clock(), self._engine()
        reading, before = self._sensors.read(facts.pid), self.level
        self.state = self._policy.decide(self.state, reading, now)
        self._act(before, facts, now)
        if reading is not None:
            self._end_eviction(reading, now)
            self._look_after(facts, reading, now)
        is_leaving = self._leaving is not None and not self._held_told
        return LEAST_PERIOD if is_leaving else self._policy.period(self.state)

    def fields(self) -> dict[str, Any]:
        """Return what status tells."""
        found = {"level": self.level.label, "sources": self._live} | figures(self.state)
        if self.engine_proportional_bytes is not None:
            found["engine_proportional_bytes"] = self.engine_proportional_bytes
        if self.level > Level.OK:
            found["reason"] = reason(self.state)
        return found

    def _act(self, before: Level, facts: EngineFacts, now: float) -> None:
        """Ask for what each level wants that lies between the last and this one."""
        if self.level == before:
            return
        told = {"now": self.level.label, "before": before.label, "reason": reason(self.state)}
        self._actions.tell("memory_level", told | figures(self.state))
        for level in Level:
            if before < level <= self.level:
                self._enter(level, facts, now)
            elif self.level < level <= before:
                self._leave(level)

    def _enter(self, level: Level, facts: EngineFacts, now: float) -> None:
        match level:
            case Level.WARN:
                self._actions.keep_caches(False)
            case Level.SHED:
                self._actions.shed(reason(self.state))
            case Level.EVICT:
                self._evicted, self._leaving, self._held_told = True, (facts.pid, now), False
                self._actions.evict(reason(self.state))
            case Level.CRITICAL:
                self._actions.exit(reason(self.state))

    def _leave(self, level: Level) -> None:
        match level:
            case Level.WARN:
                self._actions.keep_caches(True)
            case Level.SHED:
                if self._evicted:
                    self._evicted = False
                    self._actions.load_again()
                self._actions.serve_fully()

    def _end_eviction(self, reading: MemoryReading, now: float) -> None:
        """Give the file's pages up once the engine's own memory is gone."""
        if self._leaving is None:
            return
        pid, since = self._leaving
        if reading.engine is None or reading.engine.pid != pid:
            self._leaving = None
            self._actions.drop_file_cache()
            self._actions.tell("memory_evicted", {"seconds": round(now - since, 2)} | figures(self.state))
        elif now - since >= EVICT_SECONDS and not self._held_told:
            self._held_told = True
            self._actions.tell("memory_held", {"pid": pid} | figures(self.state))

    def _look_after(self, facts: EngineFacts, reading: MemoryReading, now: float) -> None:
        """Notice an engine that grows, and take its share of memory now and then."""
        growth = self._growth.grown(facts, reading.anonymous, now)
        if growth is not None and not self._evicted:
            self._actions.tell("engine_grown", {"growth_bytes": growth} | figures(self.state))
            self._actions.restart_engine(f"it has grown by {growth / 1e6:,.0f} MB too much at rest")
        if self._idle_unload_seconds is not None and facts.at_rest:
            rests = now - facts.used_at
            if rests >= self._idle_unload_seconds:
                self._actions.unload(f"nobody has asked for {rests:.0f} s")
        if facts.pid is None:
            self.engine_proportional_bytes = None
        elif self.level < Level.SHED and now - self._proportional_at >= PROPORTIONAL_SECONDS:
            self._proportional_at = now
            self.engine_proportional_bytes = self._sensors.proportional_bytes(facts.pid)

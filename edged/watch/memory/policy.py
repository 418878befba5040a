"""Decides the level of memory: a pure function of what was decided before, a reading and the time.

Upwards a level is taken as soon as a reading asks for it, and several at once; where memory falls so fast
that its floor is near in time, `evict` is taken before it is near in bytes. Downwards it goes one level at a
time, each after a while in which no reading asked for more. `critical` is taken only where `evict` has not
helped.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from edged.settings.watch import MemoryTable
from edged.watch.memory.bounds import Bounds, Level
from edged.watch.memory.reading import MemoryReading, Pressure
from edged.watch.memory.trend import Trend, smoothed

LEAST_PERIOD, MOST_PERIOD = 0.1, 5.0
FASTEST = 200e6
"""Bytes a second that others may take: between two readings the level can't fall through `evict` unseen."""
NEAR_SECONDS = 1.0
"""An end of memory that is so near in time is one that is there."""
DWELL = {Level.WARN: 20.0, Level.SHED: 20.0, Level.EVICT: 30.0, Level.CRITICAL: 30.0}
"""How long, in seconds, no reading may ask for a level before it is left."""
MOST_DWELL = 600.0
"""`evict` is held twice as long each time that it comes back within twice this time, but no longer."""
CRITICAL_AFTER = 3.0
"""How long ending the engine is given to help."""
BLIND_AFTER = 10.0
"""How long /proc/meminfo may be unreadable before that is a reason to be careful."""
EVICT_FAULTS = 4
"""How many times the major faults that shed make the model leave."""
_FAULTS_SECONDS = 10.0  # over which faults are averaged, as the kernel does with pressure
_MOST_FAULTS = 10_000.0  # a second; a counter that leaps is no reading

Cause = Literal["available", "group", "trend", "pressure", "faults", "oom_kill", "blind"]


class Demand(NamedTuple):
    """A level that something asks for."""

    level: Level
    cause: Cause


@dataclass(frozen=True, slots=True)
class MemoryState:
    """What was decided, and what of earlier readings the next decision needs.

    Attributes:
        level: how short memory is.
        since: when this level was taken.
        cause: what asked for it; None at first.
        calm_since: since when no reading has asked for it; None while the last one did.
        evictions: how often in a row `evict` was taken.
        evicted_at: when the last time was.
        read_at: when there was a reading.
        fault_rate: major faults a second of the engine, averaged.
        reading: the last one.
        machine_trend: how what the machine has available goes.
        group_trend: the same of what is left of the control group's limit.
    """

    level: Level = Level.OK
    since: float = -math.inf
    cause: Cause | None = None
    calm_since: float | None = None
    evictions: int = 0
    evicted_at: float = -math.inf
    read_at: float | None = None
    fault_rate: float = 0.0
    reading: MemoryReading | None = None
    machine_trend: Trend | None = None
    group_trend: Trend | None = None

    @property
    def dwell(self) -> float:
        """Return how long no reading may ask for this level before it is left, in seconds."""
        seconds = DWELL.get(self.level, 0.0)
        if self.level is Level.EVICT:
            return min(seconds * 2.0 ** min(self.evictions - 1, 10), MOST_DWELL)
        return seconds


class _Domain(NamedTuple):
    """Memory that can come to its end: the machine's, or what a control group may take of it."""

    cause: Cause
    available: int
    spare: int
    bounds: Bounds
    trend: Trend | None


class MemoryPolicy:
    """The rules, by the settings.

    Args:
        table: the thresholds.
    """

    def __init__(self, table: MemoryTable) -> None:
        self._table = table
        self._bounds = functools.lru_cache(8)(lambda total: Bounds.configured(table, total))

    def decide(self, state: MemoryState, reading: MemoryReading | None, now: float) -> MemoryState:
        """Return the state after a reading, None if there was none to be had, at a monotonic time."""
        if reading is None:
            return self._blind(state, now)
        kills = _oom_kills(state.reading, reading)
        state = _observed(state, reading, now)
        domains = self._domains(state, reading)
        state = _risen(state, _highest(self._demands(state, reading, domains, kills, to_leave=False)), now)
        held = _highest(self._demands(state, reading, domains, kills, to_leave=True))
        if held.level >= state.level:
            return replace(state, calm_since=None)
        calm_since = now if state.calm_since is None else state.calm_since
        if now - max(calm_since, state.since) < state.dwell:
            return replace(state, calm_since=calm_since)
        lower = Level(state.level - 1)
        return replace(state, level=lower, since=now, calm_since=now, cause=held.cause if lower else None)

    def period(self, state: MemoryState) -> float:
        """Return how many seconds the next reading may be away: the less memory is left, the fewer."""
        if state.reading is None:
            return 1.0
        seconds = MOST_PERIOD if state.level is Level.OK else 1.0
        for domain in self._domains(state, state.reading):
            left, trend = domain.available - domain.bounds.critical, domain.trend
            if trend and trend.may_end_in(left) <= 2 * NEAR_SECONDS:
                return LEAST_PERIOD
            step = domain.bounds.evict - domain.bounds.critical if state.level < Level.EVICT else 0
            seconds = min(seconds, (left - step) / FASTEST)
        return max(LEAST_PERIOD, seconds)

    def room(self, reading: MemoryReading) -> int:
        """Return how many bytes may be taken now without entering `warn`."""
        domains = self._domains(MemoryState(), reading)
        return max(0, min(domain.spare - domain.bounds.warn for domain in domains))

    def _blind(self, state: MemoryState, now: float) -> MemoryState:
        read_at = now if state.read_at is None else state.read_at
        level = Level.WARN if now - read_at >= BLIND_AFTER else Level.OK
        return _risen(replace(state, read_at=read_at, calm_since=None), Demand(level, "blind"), now)

    def _domains(self, state: MemoryState, reading: MemoryReading) -> list[_Domain]:
        bounds = self._bounds(reading.machine.total)
        # Swap on a disk puts the end off, but a device that lives on it is of no use: it counts for little.
        swap = min(reading.machine.disk_swap_free, bounds.critical)
        found = [
            _Domain("available", reading.machine.available + swap, reading.spare, bounds, state.machine_trend)
        ]
        group = reading.group
        if group and group.limit is not None and group.available is not None and group.spare is not None:
            bounds = Bounds.of(group.limit)
            found.append(_Domain("group", group.available, group.spare, bounds, state.group_trend))
        return found

    def _demands(
        self,
        state: MemoryState,
        reading: MemoryReading,
        domains: Iterable[_Domain],
        kills: int,
        *,
        to_leave: bool,
    ) -> Iterator[Demand]:
        """Give every level that something asks for; it takes less to hold one than to enter it."""
        short = False
        for domain in domains:
            bounds, trend = domain.bounds, domain.trend
            short = short or domain.spare < bounds.warn + bounds.margin
            yield Demand(bounds.level(domain.available, domain.spare, to_leave=to_leave), domain.cause)
            if trend and trend.ends_in(domain.available - bounds.critical) <= NEAR_SECONDS:
                yield Demand(Level.EVICT, "trend")
        if kills:
            yield Demand(Level.SHED, "oom_kill")
        if short:  # else it is something else that is waited for, or others' limits, or a backup that runs
            share = 0.5 if to_leave else 1.0
            for pressure in filter(None, (reading.machine_pressure, reading.group_pressure)):
                yield Demand(self._by_pressure(pressure, share), "pressure")
            yield Demand(self._by_faults(state.fault_rate, share), "faults")

    def _by_pressure(self, pressure: Pressure, share: float) -> Level:
        if pressure.full >= self._table.evict_pressure_percent * share:
            return Level.EVICT
        if pressure.full >= self._table.shed_pressure_percent * share:
            return Level.SHED
        return Level.WARN if pressure.some >= self._table.shed_pressure_percent * share else Level.OK

    def _by_faults(self, rate: float, share: float) -> Level:
        if rate >= self._table.major_faults_per_second * EVICT_FAULTS * share:
            return Level.EVICT
        return Level.SHED if rate >= self._table.major_faults_per_second * share else Level.OK


def _observed(state: MemoryState, reading: MemoryReading, now: float) -> MemoryState:
    """Return the state with what the reading adds to what is known of earlier ones."""
    before, engine = state.reading, reading.engine
    same = before is not None and _pid(before) == _pid(reading)
    rate = 0.0
    if same and before and before.engine and engine and state.read_at is not None:
        rate, seconds = state.fault_rate, now - state.read_at
        if seconds > 0:
            faults = max(0, engine.major_faults - before.engine.major_faults)
            rate = smoothed(rate, min(faults / seconds, _MOST_FAULTS), seconds, _FAULTS_SECONDS)
    group = reading.group.available if reading.group else None
    machine_left = reading.machine.available + reading.anonymous
    return replace(
        state,
        read_at=now,
        fault_rate=rate,
        reading=reading,
        machine_trend=Trend.after(state.machine_trend, machine_left, now, comparable=same),
        group_trend=None
        if group is None
        else Trend.after(state.group_trend, group + reading.anonymous, now, comparable=same),
    )


def _risen(state: MemoryState, demand: Demand, now: float) -> MemoryState:
    """Return the state at the level that is asked for, if that is higher."""
    level = demand.level
    if level is Level.CRITICAL and (state.level < Level.EVICT or now - state.since < CRITICAL_AFTER):
        level = Level.EVICT
    if level <= state.level:
        return state
    if state.level < Level.EVICT <= level:
        again = now - state.evicted_at < 2 * MOST_DWELL
        state = replace(state, evictions=state.evictions + 1 if again else 1, evicted_at=now)
    return replace(state, level=level, since=now, cause=demand.cause, calm_since=None)


def _highest(demands: Iterable[Demand]) -> Demand:
    return max(demands, key=lambda demand: demand.level)


def _pid(reading: MemoryReading) -> int | None:
    return reading.engine.pid if reading.engine else None


def _oom_kills(before: MemoryReading | None, now: MemoryReading) -> int:
    if before is None or before.group is None or now.group is None:
        return 0
    return max(0, now.group.oom_kills - before.group.oom_kills)

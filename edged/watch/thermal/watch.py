"""Looks at the sensors, lets the governor decide and has the engine tuned; tells what changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from edged.settings.watch import ThermalTable
from edged.watch.thermal.energy import Account, EnergyBudget
from edged.watch.thermal.governor import Decision, Governor, Plant, decide, first, renewed
from edged.watch.thermal.reading import NO_FLAGS, ThermalReading
from edged.watch.thermal.sensors import ThermalSensors
from edged.watch.thermal.words import reason

LOOK_SECONDS = 1.0
"""How often `look` is to be called: a chip warms by some degrees in a second."""
RETRY_SECONDS = 60.0
"""After so long a request that was refused as too_hot has a chance: boards cool slowly."""
_FULL_LOOK_SECONDS = 5.0  # all but the temperature changes slowly, and reading it costs
_LEAST_CHANGE = 0.02  # of the duty, that the engine is told of

Happening = Literal["thermal", "thermometer", "undervoltage", "throttled"]


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the watch knows of the engine.

    Attributes:
        seconds: processor time that its process has taken; None: it does not run.
        speeds: how fast it decodes with 1, 2, … threads, in any unit; as many as it may use.
        threads_batch: the most threads for reading prompts.
    """

    seconds: float | None
    speeds: tuple[float, ...]
    threads_batch: int


class Actions(Protocol):
    """What the thermal watch can have done. Nothing here may wait or raise."""

    def tune(self, threads: int, threads_batch: int, duty: float) -> None:
        """Have the engine use so many threads, for this share of the time; it rests between steps."""

    def refuse(self, reason: str | None, retry_after_s: float) -> None:
        """Refuse new requests as too_hot, to be tried again after so long; no reason: admit them again."""

    def tell(self, happening: Happening, figures: Mapping[str, Any]) -> None:
        """Tell that something happened."""


class ThermalWatch:
    """Governs heat and power.

    Attributes:
        decision: what is in force.
        reading: what the sensors said last.
        target: degrees Celsius that are not passed.

    Args:
        table: target and budget.
        sensors: what is looked at.
        actions: what is done.
        engine: tells of the engine.
        clock: gives seconds, monotonic.
    """

    def __init__(
        self,
        table: ThermalTable,
        sensors: ThermalSensors,
        actions: Actions,
        engine: Callable[[], EngineFacts],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sensors = sensors
        self._actions = actions
        self._engine = engine
        self._clock = clock
        limits = sensors.limits()
        self.target = limits.target if table.target_celsius == "auto" else table.target_celsius
        facts = engine()
        self._plant = Plant(self.target, facts.speeds, facts.threads_batch, limits.soft_limit)
        self._budget = EnergyBudget.of(
            most_duty=table.most_duty,
            mean_watts=table.mean_watts,
            rest_watts=table.rest_watts,
            full_watts=table.full_watts,
        )
        self._account = Account.full(self._budget)
        self._ceiling = 1.0  # the most effort that the account allows
        self._governor: Governor = first(self._plant)
        self._tuned: Decision | None = None  # what the engine was told last
        self.reading = ThermalReading()
        self._full_look_at: float | None = None
        self._worked: tuple[float, float] | None = None  # when, and the engine's processor time then

    @property
    def decision(self) -> Decision:
        """Return what is in force."""
        return self._governor.decision

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Look once and act on it. Never fails for what the sensors say."""
        now, facts = self._clock(), self._engine()
        if (facts.speeds, facts.threads_batch) != (self._plant.speeds, self._plant.threads_batch):
            self._plant = replace(self._plant, speeds=facts.speeds, threads_batch=facts.threads_batch)
            self._governor = renewed(self._governor, self._plant)
        before, flags = self._governor, self.reading.flags or NO_FLAGS
        self._read(now)
        busy = self._busy(facts.seconds, now)
        self._ceiling = self._spend(busy, now - before.at if before.at is not None else 0.0)
        self._governor = decide(before, self.reading, now, self._plant, busy=busy, ceiling=self._ceiling)
        self._tune()
        self._tell(before.decision)
        for happening, was, is_now in self._alarms(flags.under_voltage, flags.throttled):
            if was != is_now:
                self._actions.tell(happening, {"now": is_now, **self._figures()})

    def fields(self) -> dict[str, Any]:
        """Return what status tells."""
        reading, flags = self.reading, self.reading.flags
        return {
            "state": self.decision.state,
            "reason": self._reason(),
            **self._figures(),
            "threads_batch": self.decision.threads_batch,
            "fault": self.decision.fault,
            "under_voltage": flags.under_voltage if flags else None,
            "throttled": flags.throttled if flags else None,
            "megahertz": reading.megahertz,
            "fan_rpm": reading.fan_rpm,
            "watts": reading.watts,
        }

    def _figures(self) -> dict[str, Any]:
        return {
            "celsius": self.reading.celsius,
            "target_celsius": self.target,
            "threads": self.decision.threads,
            "duty": round(self.decision.duty, 2),
        }

    def _reason(self) -> str | None:
        most = len(self._plant.speeds)
        return reason(self.decision, self.reading, self.target, most_threads=most, ceiling=self._ceiling)

    def _read(self, now: float) -> None:
        if self._full_look_at is None or now - self._full_look_at >= _FULL_LOOK_SECONDS:
            self._full_look_at = now
            self.reading = self._sensors.read()
        else:
            self.reading = replace(self.reading, celsius=self._sensors.celsius())

    def _busy(self, worked: float | None, now: float) -> float:
        """Return the share of the time since the last look in which the engine computed."""
        before, self._worked = self._worked, (now, worked) if worked is not None else None
        if worked is None or before is None or now <= before[0]:
            return 0.0
        return min(1.0, max(0.0, worked - before[1]) / (now - before[0]) / self.decision.threads)

    def _spend(self, busy: float, seconds: float) -> float:
        """Charge the account with what was done, and return the most effort that it allows."""
        effort = busy * self.decision.effort / max(self.decision.duty, busy)
        if self.reading.watts is not None and self._budget.full_watts > self._budget.rest_watts:
            effort = self._budget.effort(self.reading.watts)
        self._account = self._account.spend(self._budget, effort, seconds)
        return self._account.ceiling(self._budget)

    def _tune(self) -> None:
        new = self.decision
        # An engine that was told nothing does as it was loaded.
        old = self._tuned or Decision(len(self._plant.speeds), self._plant.threads_batch, 1.0)
        changed = abs(new.duty - old.duty) >= _LEAST_CHANGE or (new.duty == 1.0) != (old.duty == 1.0)
        if changed or (new.threads, new.threads_batch) != (old.threads, old.threads_batch):
            self._tuned = new
            self._actions.tune(new.threads, new.threads_batch, new.duty)

    def _tell(self, before: Decision) -> None:
        new = self.decision
        if new.state != before.state:
            facts = {"state": new.state, "before": before.state, "reason": self._reason()}
            self._actions.tell("thermal", facts | self._figures())
        if new.fault != before.fault:
            self._actions.tell("thermometer", {"fault": new.fault} | self._figures())
        if new.refuse != before.refuse:
            self._actions.refuse(self._reason() if new.refuse else None, RETRY_SECONDS)

    def _alarms(self, under_voltage: bool, throttled: bool) -> tuple[tuple[Happening, bool, bool], ...]:
        """Return each of the firmware's flags that is told of, with what it was and what it is."""
        flags = self.reading.flags or NO_FLAGS
        return (
            ("undervoltage", under_voltage, flags.under_voltage),
            ("throttled", throttled, flags.throttled),
        )

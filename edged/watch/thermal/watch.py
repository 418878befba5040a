"""Looks at the sensors, lets the governor decide and has the engine tuned; tells what changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from edged.settings.watch import ThermalTable
from edged.watch.thermal.energy import Account, EnergyBudget
from edged.watch.thermal.governor import Decision, Governor, Plant, decide, first
from edged.watch.thermal.reading import ThermalReading
from edged.watch.thermal.sensors import ThermalSensors

LOOK_SECONDS = 1.0
"""How often `look` is to be called: a chip warms by some degrees in a second."""
RETRY_SECONDS = 60.0
"""After so long a request that was refused as too_hot has a chance: boards cool slowly."""
_FULL_LOOK_SECONDS = 5.0  # all but the temperature changes slowly, and reading it costs
_LEAST_CHANGE = 0.02  # of the duty, that the engine is told of


class Actions(Protocol):
    """What the thermal watch can have done."""

    def tune(self, threads: int, threads_batch: int, duty: float) -> None:
        """Have the engine use so many threads, for this share of the time; it rests between steps."""

    def refuse(self, retry_after_s: float | None) -> None:
        """Refuse new requests as too_hot, to be tried again after so long; None: admit them again."""

    def tell(self, type: str, data: Mapping[str, Any]) -> None:
        """Tell that something happened."""


class ThermalWatch:
    """Governs heat and power.

    Attributes:
        decision: what is in force.
        reading: what the sensors said last.
        target: degrees Celsius that are not passed.

    Args:
        sensors: what is looked at.
        actions: what is done.
        settings: the table [watch.thermal].
        speeds: how fast the engine decodes with 1, 2, … threads, in any unit; as many as it may use.
        threads_batch: the most threads for reading prompts.
        engine_seconds: gives the processor time that the engine has taken; None: it does not run.
        clock: gives seconds, monotonic.
    """

    def __init__(
        self,
        *,
        sensors: ThermalSensors,
        actions: Actions,
        settings: ThermalTable,
        speeds: tuple[float, ...],
        threads_batch: int,
        engine_seconds: Callable[[], float | None],
        clock: Callable[[], float],
    ) -> None:
        self._sensors = sensors
        self._actions = actions
        self._engine_seconds = engine_seconds
        self._clock = clock
        limits = sensors.limits()
        self.target = limits.target if settings.target_celsius == "auto" else settings.target_celsius
        self._plant = Plant(self.target, speeds, threads_batch, limits.soft_limit)
        self._budget = EnergyBudget.of(
            most_duty=settings.most_duty,
            mean_watts=settings.mean_watts,
            rest_watts=settings.rest_watts,
            full_watts=settings.full_watts,
        )
        self._account = Account.full(self._budget)
        self._governor: Governor = first(self._plant)
        self._tuned: Decision = self._governor.decision
        self.reading = ThermalReading()
        self._full_look_at: float | None = None
        self._worked: tuple[float, float] | None = None  # when, and the engine's processor time then

    @property
    def decision(self) -> Decision:
        """Return what is in force."""
        return self._governor.decision

    def look(self) -> None:
        """Look once and act on it. Never fails for what the sensors say."""
        now = self._clock()
        before = self._governor
        self._read(now)
        busy = self._busy(now)
        ceiling = self._spend(busy, now - before.at if before.at is not None else 0.0)
        self._governor = decide(before, self.reading, now, self._plant, busy=busy, ceiling=ceiling)
        self._tune()
        self._tell(before.decision)

    def _read(self, now: float) -> None:
        if self._full_look_at is None or now - self._full_look_at >= _FULL_LOOK_SECONDS:
            self._full_look_at = now
            self.reading = self._sensors.read()
        else:
            self.reading = replace(self.reading, celsius=self._sensors.celsius())

    def _busy(self, now: float) -> float:
        """Return the share of the time since the last look in which the engine computed."""
        worked = self._engine_seconds()
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
        new, old = self.decision, self._tuned
        changed = abs(new.duty - old.duty) >= _LEAST_CHANGE or (new.duty == 1.0) != (old.duty == 1.0)
        if changed or (new.threads, new.threads_batch) != (old.threads, old.threads_batch):
            self._tuned = new
            self._actions.tune(new.threads, new.threads_batch, new.duty)

    def _tell(self, before: Decision) -> None:
        new = self.decision
        facts = {
            "celsius": self.reading.celsius,
            "target_celsius": self.target,
            "threads": new.threads,
            "duty": round(new.duty, 2),
        }
        if new.state != before.state:
            self._actions.tell("thermal", {"state": new.state, **facts})
        if new.fault != before.fault:
            self._actions.tell("thermometer", {"fault": new.fault, **facts})
        if new.refuse != before.refuse:
            self._actions.refuse(RETRY_SECONDS if new.refuse else None)

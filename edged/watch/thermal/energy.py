"""An energy budget for devices on battery: a mean over minutes, so that short work is not slowed."""

from __future__ import annotations

from dataclasses import dataclass, replace

WINDOW_SECONDS = 600.0
"""Over so long the mean is kept."""
_SLOWING = 0.25  # of the full account: below it the ceiling comes down to the mean


@dataclass(frozen=True, slots=True)
class EnergyBudget:
    """What is allowed, as a share of what full work takes above rest.

    Attributes:
        share: the mean that is allowed; 1: all.
        rest_watts: what the device takes at rest, for measured power.
        full_watts: what it takes at full work.
    """

    share: float = 1.0
    rest_watts: float = 0.0
    full_watts: float = 1.0

    @classmethod
    def of(
        cls, *, most_duty: float, mean_watts: float | None, rest_watts: float, full_watts: float
    ) -> EnergyBudget:
        """Return the budget for a mean duty and a mean power, whichever is the less."""
        share = most_duty
        if mean_watts is not None:
            share = min(share, max(0.0, (mean_watts - rest_watts) / (full_watts - rest_watts)))
        return cls(share, rest_watts, full_watts)

    def effort(self, watts: float) -> float:
        """Return measured power as a share of full work."""
        return max(0.0, (watts - self.rest_watts) / (self.full_watts - self.rest_watts))


@dataclass(frozen=True, slots=True)
class Account:
    """What has been saved of the budget.

    Attributes:
        saved: seconds of full work.
    """

    saved: float

    @classmethod
    def full(cls, budget: EnergyBudget) -> Account:
        """Return the account of a device that has rested."""
        return cls(budget.share * WINDOW_SECONDS)

    def spend(self, budget: EnergyBudget, effort: float, seconds: float) -> Account:
        """Return the account after so long at so much effort."""
        saved = self.saved + (budget.share - effort) * seconds
        return replace(self, saved=min(max(saved, -WINDOW_SECONDS), budget.share * WINDOW_SECONDS))

    def ceiling(self, budget: EnergyBudget) -> float:
        """Return the most effort allowed now: all while the account is well filled, the mean when empty."""
        filled = self.saved / max(_SLOWING * budget.share * WINDOW_SECONDS, 1e-9)
        if filled <= 0.0:
            return budget.share * max(0.0, 1.0 + self.saved / WINDOW_SECONDS)
        return budget.share + (1.0 - budget.share) * min(1.0, filled)

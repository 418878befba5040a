from __future__ import annotations

import pytest

from edged.watch.thermal.energy import WINDOW_SECONDS, Account, EnergyBudget


def budget(*, most_duty: float = 1.0, mean_watts: float | None = None) -> EnergyBudget:
    return EnergyBudget.of(most_duty=most_duty, mean_watts=mean_watts, rest_watts=3.0, full_watts=8.0)


def mean_effort(allowed: EnergyBudget, seconds: int) -> float:
    """What a device comes to that takes all it may."""
    account, total = Account.full(allowed), 0.0
    for _ in range(seconds):
        effort = account.ceiling(allowed)
        account = account.spend(allowed, effort, 1.0)
        total += effort
    return total / seconds


def test_the_less_of_duty_and_power_counts() -> None:
    assert budget().share == 1.0
    assert budget(most_duty=0.3).share == 0.3
    assert budget(mean_watts=4.0).share == pytest.approx(0.2)
    assert budget(mean_watts=4.0, most_duty=0.1).share == 0.1


def test_who_has_rested_may_work_at_full_speed() -> None:
    allowed = budget(most_duty=0.5)
    assert Account.full(allowed).ceiling(allowed) == 1.0


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
def test_the_mean_is_kept(share: float) -> None:
    allowed = budget(most_duty=share)
    seconds = 12 * 3600
    saved_before = share * WINDOW_SECONDS / seconds
    assert share * 0.98 <= mean_effort(allowed, seconds) <= share + saved_before + 1e-9


def test_the_ceiling_comes_down_smoothly() -> None:
    allowed = budget(most_duty=0.3)
    account = Account.full(allowed)
    before = account.ceiling(allowed)
    for _ in range(3600):
        account = account.spend(allowed, before, 1.0)
        ceiling = account.ceiling(allowed)
        assert abs(ceiling - before) < 0.02
        before = ceiling


def test_measured_power_that_is_above_the_budget_is_made_good() -> None:
    """A device that takes more than was thought comes down below its share of work."""
    allowed = budget(mean_watts=4.0)
    account, taken = Account.full(allowed), 0.0
    hours = 12
    for _ in range(hours * 3600):
        watts = 3.0 + 10.0 * account.ceiling(allowed)  # twice what full_watts says
        account = account.spend(allowed, allowed.effort(watts), 1.0)
        taken += watts
    assert taken / hours / 3600 <= 4.1


def test_no_budget_never_limits() -> None:
    allowed = budget()
    account = Account.full(allowed)
    for _ in range(3600):
        account = account.spend(allowed, 1.0, 1.0)
    assert account.ceiling(allowed) == 1.0

"""Rests follow what was computed, however long the steps are."""

from __future__ import annotations

import pytest

from edged.engine.child.duty import LEAST_REST_SECONDS, Duty


class Engine:
    """Computes steps in a time of its own, and rests when it has to."""

    def __init__(self, share: float) -> None:
        self.now = 100.0
        self.duty = Duty(lambda: self.now)
        self.duty.share = share
        self.computed = 0.0
        self.rests: list[float] = []

    def step(self, seconds: float) -> None:
        if (rest := self.duty.rest()) > 0:
            self.rests.append(rest)
            self.now += rest
        self.duty.begin()
        self.now += seconds
        self.computed += seconds
        self.duty.end()


@pytest.mark.parametrize("share", [0.03, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("seconds", [0.001, 0.02, 0.5])
def test_the_share_of_the_time_is_kept_whatever_a_step_lasts(share: float, seconds: float) -> None:
    engine = Engine(share)
    begun = engine.now
    while engine.computed < 20:
        engine.step(seconds)
    assert engine.computed / (engine.now - begun) == pytest.approx(share, rel=0.02, abs=0.002)
    assert min(engine.rests) >= LEAST_REST_SECONDS


def test_who_may_compute_all_the_time_does_not_rest() -> None:
    engine = Engine(1.0)
    for _ in range(100):
        engine.step(0.5)
    assert engine.rests == []


def test_time_without_work_is_a_rest() -> None:
    engine = Engine(0.5)
    engine.step(1.0)
    engine.now += 1.0
    engine.step(0.01)
    assert engine.rests == []


def test_a_rest_follows_the_share_that_is_wanted_now() -> None:
    engine = Engine(0.1)
    engine.step(1.0)
    assert engine.duty.rest() == pytest.approx(9.0)
    engine.now += 2.0
    engine.duty.share = 0.25
    assert engine.duty.rest() == pytest.approx(1.0)
    engine.duty.share = 1.0
    assert engine.duty.rest() <= 0

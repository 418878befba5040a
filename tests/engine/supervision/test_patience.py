"""How long the engine may be silent: the bound follows how fast it has been."""

from __future__ import annotations

import pytest

from edged.engine.supervision.patience import FADING, HEARTBEAT_GRACE_SECONDS, LOAD_SECONDS, STEPS, Patience

STALL = 15.0


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def bound(patience: Patience, clock: Clock, *, owing: bool) -> float:
    """Return the seconds of silence from now on at which patience ends."""
    start, step = clock.now, 0.25
    while patience.exceeded(owing=owing) is None:
        clock.now += step
    found = clock.now - start - step
    clock.now = start
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def patience(clock: Clock) -> Patience:
    """Patience with an engine that is loaded."""
    patience = Patience(STALL, clock)
    patience.loaded()
    return patience


def step(patience: Patience, clock: Clock, seconds: float, times: int = 1) -> None:
    for _ in range(times):
        clock.now += seconds
        patience.heard(owing=True)


def test_a_model_may_be_loaded_for_long(clock: Clock) -> None:
    assert bound(Patience(STALL, clock), clock, owing=False) == LOAD_SECONDS


def test_a_fast_engine_is_waited_for_as_long_as_is_set(patience: Patience, clock: Clock) -> None:
    step(patience, clock, 0.1)
    assert bound(patience, clock, owing=True) == STALL


def test_time_for_which_others_had_the_cores_is_not_held_against_it(patience: Patience, clock: Clock) -> None:
    patience.excuse(40.0)
    assert bound(patience, clock, owing=True) == STALL + 40.0
    patience.heard(owing=True)
    assert bound(patience, clock, owing=True) == STALL


def test_an_engine_that_is_told_to_rest_between_steps_may(patience: Patience, clock: Clock) -> None:
    patience.duty = 0.1
    assert bound(patience, clock, owing=True) == pytest.approx(STALL + 4.5), "a step of half a second"
    step(patience, clock, 10.0)
    assert bound(patience, clock, owing=True) == pytest.approx(STALL + 9.0), "one of a second"


def test_an_engine_at_rest_is_heard_of_by_its_heartbeat(patience: Patience, clock: Clock) -> None:
    assert bound(patience, clock, owing=False) == STALL + HEARTBEAT_GRACE_SECONDS


def test_a_slow_engine_is_waited_for_by_its_slowest_step(patience: Patience, clock: Clock) -> None:
    step(patience, clock, 4.0)
    assert bound(patience, clock, owing=True) == STEPS * 4.0


def test_a_slow_warm_up_promises_slow_steps(clock: Clock) -> None:
    patience = Patience(STALL, clock)
    clock.now += 50.0
    patience.heard(owing=False)  # the weights are there
    clock.now += 4.0
    patience.loaded()
    assert bound(patience, clock, owing=True) == STEPS * 4.0


def test_what_was_slow_is_forgotten_step_by_step(patience: Patience, clock: Clock) -> None:
    step(patience, clock, 4.0)
    step(patience, clock, 0.1, times=100)
    assert STEPS * 4.0 * FADING**100 < STALL
    assert bound(patience, clock, owing=True) == STALL


def test_a_single_long_wait_does_not_make_it_wait_for_ever(patience: Patience, clock: Clock) -> None:
    step(patience, clock, 60.0)
    assert bound(patience, clock, owing=True) == LOAD_SECONDS


def test_time_at_rest_is_no_slow_step(patience: Patience, clock: Clock) -> None:
    clock.now += 20.0
    patience.heard(owing=False)
    assert bound(patience, clock, owing=True) == STALL


def test_silence_counts_from_when_something_is_asked(patience: Patience, clock: Clock) -> None:
    clock.now += 20.0
    patience.expect()
    assert bound(patience, clock, owing=True) == STALL


def test_a_new_process_is_not_judged_by_the_one_before(patience: Patience, clock: Clock) -> None:
    step(patience, clock, 60.0)
    patience.begin()
    patience.loaded()
    assert bound(patience, clock, owing=True) == STALL


def test_it_is_told_how_long_the_silence_was(patience: Patience, clock: Clock) -> None:
    clock.now += 15.5
    assert patience.exceeded(owing=True) == 15.5

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from edged.watch.thermal.trust import (
    DISTRUST_SECONDS,
    HOLD_SECONDS,
    PROOF_SECONDS,
    SAME_SECONDS,
    Trust,
    judge,
)


def after(
    said: Iterable[float | None],
    trust: Trust | None = None,
    *,
    busy: bool = True,
    limit: float | None = None,
    at: float = 0.0,
) -> Trust:
    """What is thought after these readings, one a second."""
    trust = trust or Trust()
    for second, celsius in enumerate(said):
        trust = judge(trust, celsius, at + second, busy=busy, firmware_limit=limit)
    return trust


def lively(seconds: int, around: float = 60.0) -> list[float]:
    return [around + 0.5 * (second % 2) for second in range(seconds)]


def test_a_sound_thermometer_is_believed() -> None:
    trust = after([40.0, 44.0, 50.0, 53.5])
    assert (trust.celsius, trust.fault, trust.in_doubt) == (53.5, None, False)


def test_where_there_never_was_one_nothing_is_wrong() -> None:
    trust = after([None] * 100)
    assert (trust.celsius, trust.fault) == (None, None)


def test_a_lost_reading_is_bridged() -> None:
    trust = after([*lively(10), None, None])
    assert (trust.celsius, trust.fault) == (60.5, None)
    assert after([*lively(10), None, None, 61.0]).celsius == 61.0


def test_a_thermometer_that_vanishes() -> None:
    trust = after([*lively(10), *[None] * (int(HOLD_SECONDS) + 2)])
    assert (trust.celsius, trust.fault) == (None, "vanished")


def test_a_watch_that_was_away_does_not_take_the_same_reading_for_a_stuck_one() -> None:
    trust = after([50.0], after([*lively(10), 50.0]), at=3600.0)
    assert (trust.celsius, trust.fault, trust.in_doubt) == (50.0, None, False)


def test_a_single_wild_reading_is_passed_over() -> None:
    for wild in (20.0, 110.0):
        assert after([*lively(10), wild]).celsius == 60.5
        assert after([*lively(10), wild, 60.0]).celsius == 60.0


def test_a_thermometer_that_has_jumped_is_not_believed() -> None:
    for level in (30.0, 90.0):
        trust = after([*lively(10), *lively(int(HOLD_SECONDS) + 2, level)])
        assert (trust.celsius, trust.fault) == (None, "jumped")


def test_what_has_cooled_while_nobody_looked_has_not_jumped() -> None:
    trust = judge(after(lively(10, 80.0)), 40.0, 600.0, busy=True)
    assert (trust.celsius, trust.fault) == (40.0, None)


def test_one_that_does_not_move_is_put_to_the_proof_and_then_not_believed() -> None:
    same = [60.0] * int(SAME_SECONDS)
    assert not after(same).in_doubt
    assert after([*same, 60.0]).in_doubt
    assert not after([*same, 60.0, 59.5]).in_doubt
    trust = after([*same, *[60.0] * int(PROOF_SECONDS + 1)])
    assert (trust.celsius, trust.fault) == (None, "stuck")


def test_at_rest_a_temperature_may_stay_the_same() -> None:
    assert after([45.0] * 600, busy=False) == after([45.0] * 600, busy=False)
    assert after([45.0] * 600, busy=False).celsius == 45.0


def test_one_that_is_below_what_the_firmware_acts_on_lies() -> None:
    trust = after(lively(10), limit=80.0)
    assert (trust.celsius, trust.fault) == (None, "contradicted")
    assert after(lively(10, 78.0), limit=80.0).fault is None


def test_trust_is_won_back_and_takes_longer_each_time() -> None:
    trust, now = after(lively(10)), 10.0
    for fault in range(3):
        gone = int(HOLD_SECONDS) + 2
        trust = after([None] * gone, trust, at=now)
        assert trust.fault == "vanished"
        now += gone
        wait = int(DISTRUST_SECONDS * 2**fault)
        trust = after(lively(wait), trust, at=now)
        assert trust.celsius is None
        trust = after(lively(2), trust, at=now + wait)
        assert (trust.celsius, trust.fault) == (60.5, None)
        now += wait + 2


def test_a_stuck_one_is_not_believed_while_it_sticks() -> None:
    assert after([60.0] * 3600).fault == "stuck"


@given(st.lists(st.one_of(st.none(), st.floats(-40, 125)), max_size=300))
def test_what_is_believed_never_jumps(said: list[float | None]) -> None:
    """Whatever a thermometer says, a believed temperature follows the one before as a chip's can."""
    trust = Trust()
    for second, celsius in enumerate(said):
        before = trust
        trust = judge(trust, celsius, float(second), busy=True)
        if before.celsius is not None and trust.celsius is not None:
            assert abs(trust.celsius - before.celsius) <= 12.0

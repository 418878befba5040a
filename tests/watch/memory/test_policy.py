"""The level of memory as a function of readings and time: by tables of scenarios, and by properties."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edged.settings import Settings
from edged.settings.watch import MemoryTable
from edged.watch.memory.bounds import Bounds, Level
from edged.watch.memory.policy import (
    BLIND_AFTER,
    CRITICAL_AFTER,
    DWELL,
    LEAST_PERIOD,
    MOST_DWELL,
    MOST_PERIOD,
    MemoryPolicy,
    MemoryState,
)
from edged.watch.memory.reading import MemoryReading
from tests.watch.memory.trees import MIB, PID, reading

POLICY = MemoryPolicy(MemoryTable())
OK, WARN, SHED, EVICT, CRITICAL = Level
# What the kernel says of boards sold with 512 MB, 1, 2, 4 and 8 GB, in MiB.
BOARDS = (430, 906, 1850, 3790, 7900)


def follow(
    readings: Iterable[tuple[float, MemoryReading | None]], state: MemoryState | None = None
) -> list[MemoryState]:
    """Return the states after readings, each with its time."""
    states = [state or MemoryState()]
    for at, one in readings:
        states.append(POLICY.decide(states[-1], one, at))
    return states[1:]


def steadily(
    one: MemoryReading | None, since: float, until: float, every: float = 1.0
) -> list[tuple[float, MemoryReading | None]]:
    count = round((until - since) / every)
    return [(since + number * every, one) for number in range(count + 1)]


def level_of(one: MemoryReading) -> Level:
    return follow([(0.0, one)])[-1].level


# Thresholds


@pytest.mark.parametrize("total", BOARDS)
def test_thresholds_are_in_order_and_leave_most_of_the_memory_alone(total: float) -> None:
    bounds = Bounds.of(int(total * MIB))
    assert bounds.critical < bounds.evict < bounds.shed < bounds.warn
    assert bounds.warn + bounds.margin <= total * MIB * 0.2
    assert bounds.evict - bounds.critical >= 200e6 * LEAST_PERIOD


@pytest.mark.parametrize(
    ("total", "available", "mapped"),
    [(430, 170, 88), (906, 480, 88), (906, 300, 88), (1850, 900, 400), (3790, 2900, 400), (7900, 6500, 400)],
)
def test_a_board_that_serves_its_default_model_is_at_rest(
    total: float, available: float, mapped: float
) -> None:
    """Available: beside Raspberry Pi OS Lite and the engine, whose weights count as available."""
    assert level_of(reading(available, total, anonymous=100, mapped=mapped)) is OK


def test_a_setting_goes_before_what_is_automatic_and_order_is_kept() -> None:
    auto = Bounds.of(906 * MIB)
    assert Bounds.configured(MemoryTable(), 906 * MIB) == auto
    assert Bounds.configured(MemoryTable(evict_bytes=500 * MIB), 906 * MIB) == Bounds(
        warn=500 * MIB, shed=500 * MIB, evict=500 * MIB, critical=auto.critical
    )
    assert Bounds.configured(MemoryTable(warn_bytes=20 * MIB), 906 * MIB) == Bounds(
        warn=20 * MIB, shed=20 * MIB, evict=20 * MIB, critical=20 * MIB
    )
    policy = MemoryPolicy(MemoryTable(warn_bytes=800 * MIB))
    assert policy.decide(MemoryState(), reading(700), 0).level is WARN


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        (
            {"evict_bytes": 90_000_000, "warn_bytes": 80_000_000},
            "watch.memory.evict_bytes = 90000000 is more than watch.memory.warn_bytes = 80000000",
        ),
        (
            {"shed_pressure_percent": 50},
            "shed_pressure_percent = 50 is more than watch.memory.evict_pressure_percent = 40",
        ),
    ],
)
def test_thresholds_out_of_order_are_refused_with_both(memory: dict[str, int], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        Settings(watch={"memory": memory})


# What asks for which level

SCENARIOS = {
    "plenty": (reading(500), OK),
    "little left": (reading(75), WARN),
    "less": (reading(60), SHED),
    "hardly any": (reading(50), EVICT),
    "none: ending the engine is tried first": (reading(5), EVICT),
    "plenty, but for the weights in use": (reading(300, anonymous=100, mapped=225), WARN),
    "even less beside the weights": (reading(300, anonymous=100, mapped=250), SHED),
    "weights alone make nobody leave": (reading(120, anonymous=100, mapped=120), SHED),
    "the service's limit is near": (reading(500, limit=512, limit_available=35), EVICT),
    "weights in use within the limit": (reading(500, limit=512, limit_available=200, limit_spare=50), SHED),
    "the service's limit is far": (reading(500, limit=512, limit_available=300), OK),
    "a limit, but the machine has less": (reading(60, limit=512, limit_available=300), SHED),
    "room on a disk's swap puts the end off by the floor, no more": (reading(40, disk_swap=2000), SHED),
    "a disk's swap is not a second memory": (reading(20, disk_swap=2000), EVICT),
    "pressure with plenty left is others'": (reading(500, full=90), OK),
    "pressure of the own group with plenty left is a file that is read": (reading(500, group_full=90), OK),
    "pressure while memory is short": (reading(85, full=12), SHED),
    "heavy pressure while memory is short": (reading(85, full=45), EVICT),
    "pressure of the own group at its limit": (
        reading(500, limit=512, limit_available=65, group_full=45),
        EVICT,
    ),
}


@pytest.mark.parametrize(("one", "level"), SCENARIOS.values(), ids=SCENARIOS.keys())
def test_a_first_reading_sets_the_level_at_once(one: MemoryReading, level: Level) -> None:
    assert level_of(one) is level


def test_major_faults_while_weights_are_taken_back_shed_and_then_evict() -> None:
    def thrash(rate: int, seconds: int, available: float = 300) -> list[MemoryState]:
        return follow(
            (float(at), reading(available, anonymous=100, mapped=220, faults=at * rate))
            for at in range(seconds)
        )

    assert thrash(20, 60)[-1].level is WARN
    assert thrash(70, 60)[-1].level is SHED
    assert thrash(300, 60)[-1].level is EVICT
    assert thrash(300, 60)[-1].cause == "faults"
    assert thrash(300, 3)[-1].level < EVICT  # a moment is not enough
    assert thrash(300, 60, available=800)[-1].level is OK  # weights that are read from a cold card


def test_faults_of_another_process_do_not_count() -> None:
    first = reading(85, anonymous=100, pid=PID, faults=10)
    other = reading(85, anonymous=100, pid=PID + 1, faults=900_000)
    assert [state.level for state in follow([(0, first), (1, other)])] == [OK, OK]


def test_a_process_of_the_service_killed_for_memory_sheds() -> None:
    before = reading(500, limit=512, limit_available=300)
    after = reading(500, limit=512, limit_available=300, oom_kills=1)
    states = follow([(0, before), (1, after)])
    assert (states[-1].level, states[-1].cause) == (SHED, "oom_kill")


def test_memory_that_falls_fast_makes_the_model_leave_before_little_is_left() -> None:
    fall = [(number / 10, reading(600 - number * 20, total=1850)) for number in range(20)]
    states = follow([(-2.0, reading(600, total=1850)), *fall])
    jump = next(state for state in states if state.level is EVICT)
    assert jump.cause == "trend"
    assert jump.reading is not None
    assert jump.reading.machine.available > Bounds.of(1850 * MIB).warn
    assert [state.level for state in states if state.level is not EVICT][-1] is OK


def test_memory_that_falls_by_a_leap_and_stays_is_looked_at_closely_and_no_more() -> None:
    """Somebody starts a large program: the next reading comes at once, and shows that it has had enough."""
    state = follow([(0.0, reading(420)), (2.0, reading(120))])[-1]
    assert (state.level, POLICY.period(state)) == (OK, LEAST_PERIOD)
    assert {one.level for one in follow(steadily(reading(119), 2.1, 10.0, 0.1), state)} == {OK}


def test_the_own_engine_that_loads_is_no_fall() -> None:
    load = [(1 + number / 10, reading(400 - number * 25, anonymous=number * 25)) for number in range(11)]
    assert {state.level for state in follow([(0, reading(400, anonymous=0)), *load])} == {OK}


def test_an_engine_whose_memory_is_not_all_back_yet_is_no_fall() -> None:
    """The kernel shows no memory of a process that ends before it has given back what it had."""
    ends = [(0.0, reading(250, anonymous=400)), (0.1, reading(250)), (0.2, reading(400)), (0.3, reading(650))]
    assert {state.level for state in follow(ends)} == {OK}


# Down again


def test_recovery_goes_one_level_at_a_time_after_its_dwell() -> None:
    states = follow([(0.0, reading(50)), *steadily(reading(500), 1.0, 120.0)])
    steps = [
        (round(state.since - 1.0), state.level)
        for before, state in pairwise(states)
        if before.level != state.level
    ]
    evict, shed, warn = DWELL[EVICT], DWELL[SHED], DWELL[WARN]
    assert steps == [(evict, SHED), (evict + shed, WARN), (evict + shed + warn, OK)]
    assert states[-1].cause is None


def test_a_level_is_held_between_its_two_thresholds() -> None:
    bounds = Bounds.of(906 * MIB)
    between = reading((bounds.warn + bounds.margin / 2) / MIB)
    states = follow([(0.0, reading(75)), *steadily(between, 1.0, 300.0)])
    assert {state.level for state in states} == {WARN}
    assert level_of(between) is OK


def test_one_bad_reading_starts_the_dwell_anew() -> None:
    states = follow(
        [
            (0.0, reading(75)),
            *steadily(reading(120), 1.0, 19.0),
            (20.0, reading(84)),
            *steadily(reading(120), 21.0, 39.0),
        ]
    )
    assert states[-1].level is WARN


def test_a_model_that_does_not_fit_is_tried_ever_more_seldom() -> None:
    """Each time it is loaded memory runs out again."""
    state, now, waits = MemoryState(), 0.0, []
    for _ in range(8):
        state = POLICY.decide(state, reading(50), now)
        assert state.level is EVICT
        since = now
        while state.level is not OK:
            now += 5.0
            state = POLICY.decide(state, reading(500), now)
        waits.append(now - since)
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(MOST_DWELL + DWELL[SHED] + DWELL[WARN], abs=20)
    later = POLICY.decide(state, reading(50), now + 3 * MOST_DWELL)
    assert later.dwell == DWELL[EVICT]


# The last level


def test_critical_comes_only_after_ending_the_engine_has_not_helped() -> None:
    states = follow(steadily(reading(5), 0.0, 4.0, 0.1))
    assert [state.level for state in states if state.since == 0.0] == [EVICT] * round(CRITICAL_AFTER * 10)
    assert states[-1].level is CRITICAL


# Without a reading


def test_without_readings_the_level_is_kept_and_in_time_raised_but_never_lowered() -> None:
    states = follow([(0.0, reading(60)), *steadily(None, 1.0, 600.0)])
    assert {state.level for state in states} == {SHED}
    states = follow([(0.0, reading(500)), *steadily(None, 1.0, BLIND_AFTER)])
    assert [state.level for state in states[-2:]] == [OK, WARN]
    assert states[-1].cause == "blind"
    assert follow(steadily(None, 0.0, BLIND_AFTER))[-1].level is WARN


# How often


def test_readings_come_the_more_often_the_nearer_the_end_is() -> None:
    periods = [
        POLICY.period(follow([(0.0, reading(left, total=3790))])[-1]) for left in range(3000, 230, -10)
    ]
    assert periods[0] == MOST_PERIOD
    assert periods[-1] == pytest.approx(LEAST_PERIOD, abs=0.05)
    assert all(later <= earlier for earlier, later in pairwise(periods))


def test_a_limit_that_is_near_makes_readings_frequent_too() -> None:
    near = reading(3000, total=3790, limit=512, limit_available=80)
    assert POLICY.period(follow([(0.0, near)])[-1]) < 0.5


# What holds whatever happens

AMOUNTS = st.floats(0, 906)
ANY_READING = st.none() | st.builds(
    reading,
    AMOUNTS,
    anonymous=st.none() | AMOUNTS,
    mapped=AMOUNTS,
    pid=st.sampled_from([PID, PID + 1]),
    faults=st.integers(0, 2**62),
    limit=st.none() | st.floats(1, 2000),
    limit_available=st.none() | AMOUNTS,
    full=st.none() | st.floats(0, 100),
    group_full=st.none() | st.floats(0, 100),
    oom_kills=st.integers(0, 3),
    disk_swap=AMOUNTS,
)
CHANGES_PER_MINUTE = 12


def most_changes(states: Sequence[tuple[float, MemoryState]]) -> int:
    at = [now for (_, before), (now, state) in pairwise(states) if before.level != state.level]
    return max((sum(start <= other < start + 60 for other in at) for start in at), default=0)


@settings(max_examples=20)
@given(noise=st.lists(ANY_READING, min_size=1, max_size=12), data=st.randoms(use_true_random=False))
def test_no_noise_makes_the_level_change_often(noise: list[MemoryReading | None], data: object) -> None:
    """Any readings in any order for five minutes, at the pace that the policy asks for."""
    state, now, calm = MemoryState(), 0.0, reading(800)
    seen = [(now, state)]
    while now < 300:
        # Long calms between are what lets the level down, so that noise can raise it again.
        one = data.choice([*noise, *[calm] * 40])  # type: ignore[attr-defined]
        state = POLICY.decide(state, one, now)
        seen.append((now, state))
        now += max(POLICY.period(state), 0.5)
    assert most_changes(seen) <= CHANGES_PER_MINUTE


def test_the_worst_noise_there_is_stays_within_the_bound() -> None:
    """Each time the level has come down by one, a single reading takes it to the top again."""
    state, now, seen = MemoryState(), 0.0, [(0.0, MemoryState())]
    while now < 1800:
        lowered = len(seen) > 1 and seen[-1][1].level < seen[-2][1].level
        bad = lowered or state.level is OK
        state = POLICY.decide(state, reading(75 if state.level is OK else 60) if bad else reading(800), now)
        seen.append((now, state))
        now += 0.5
    assert 3 <= most_changes(seen) <= CHANGES_PER_MINUTE


@settings(max_examples=80)
@given(
    total=st.sampled_from(BOARDS) | st.floats(400, 16_000),
    share=st.floats(0.15, 0.95),
    rate=st.floats(0.01, 200),
    rest=st.floats(0, 5),
    limited=st.booleans(),
)
def test_a_ramp_to_nothing_reaches_evict_before_the_floor(
    total: float, share: float, rate: float, rest: float, limited: bool
) -> None:
    """At any rate up to 200 MB/s, from any amount, beginning at any moment between two readings."""
    floor = Bounds.of(int(total * MIB)).critical
    state, now, begins, left = MemoryState(), 0.0, rest, math.inf
    while state.level < EVICT:
        left = total * share * MIB - max(0.0, now - begins) * rate * 1e6
        assert left > floor, "the floor was reached first"
        amount = left / MIB
        one = (
            reading(8000, 16_000, limit=total, limit_available=amount) if limited else reading(amount, total)
        )
        state = POLICY.decide(state, one, now)
        now += max(POLICY.period(state), total * share / rate / 300)  # slow ramps in fewer steps
    assert left > floor


@settings(max_examples=50)
@given(steps=st.lists(st.tuples(st.floats(0, 30), ANY_READING), max_size=40))
def test_levels_rise_at_will_and_fall_by_one(steps: list[tuple[float, MemoryReading | None]]) -> None:
    state, now = MemoryState(), 0.0
    for wait, one in steps:
        now += wait
        after = POLICY.decide(state, one, now)
        assert after.level >= state.level - 1
        assert after == POLICY.decide(state, one, now), "a pure function"
        if after.level < state.level:
            assert now - state.since >= DWELL[state.level]
        if after.level is CRITICAL:
            assert state.level >= EVICT
        assert LEAST_PERIOD <= POLICY.period(after) <= MOST_PERIOD
        state = after

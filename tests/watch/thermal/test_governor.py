"""The governor on made-up boards, in virtual time, held to the degrees and shares that are promised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.watch.thermal.governor import LEAST_DUTY, SAFE_EFFORT, Plant, decide, first
from edged.watch.thermal.reading import Flags, ThermalReading
from tools.thermal.model import DEVICES, FIRMWARE_BEGINS, PI4, PI4_FAN, PI5, PI5_COOLER, Device
from tools.thermal.simulation import airs, plant_of, simulate, steps

OVERSHOOT = SWING = 2.0
SHARE_OF_BEST = 0.9
by_device = pytest.mark.parametrize("device", DEVICES, ids=lambda device: device.name.replace(" ", "-"))


def warmest_allowed(device: Device, air: float) -> float:
    """The target, or what the least duty comes to where even that is above it."""
    plant = plant_of(device)
    least = device.settled(air, device.watts(len(plant.speeds)) * LEAST_DUTY)
    return max(plant.target, least) + OVERSHOOT


@by_device
@pytest.mark.parametrize("air", airs())
def test_it_settles_at_the_target_without_swinging(device: Device, air: int) -> None:
    run = simulate(device, 1500, air=lambda _: air)
    settled = run.since(900)
    assert max(run.celsius) <= warmest_allowed(device, air)
    assert settled.swing <= SWING
    assert settled.changes_of_threads == 0
    best = device.best_constant(air, plant_of(device).target)
    assert settled.speed >= SHARE_OF_BEST * best
    assert run.speed >= SHARE_OF_BEST * best, "the way there counts too"


@pytest.mark.slow
@by_device
@pytest.mark.parametrize("before", airs(step=20))
@pytest.mark.parametrize("after", airs(step=20))
def test_a_step_of_the_air(device: Device, before: int, after: int) -> None:
    run = simulate(device, 2700, air=steps((0, before), (900, after)))
    settled = run.since(2100)
    assert max(run.celsius) <= max(warmest_allowed(device, before), warmest_allowed(device, after))
    assert settled.swing <= SWING
    assert settled.speed >= SHARE_OF_BEST * device.best_constant(after, plant_of(device).target)


def test_the_hardest_step_of_the_air() -> None:
    assert max(simulate(PI4, 1500, air=steps((0, 20), (600, 45))).celsius) <= warmest_allowed(PI4, 45)


@pytest.mark.parametrize("device", [PI4, PI5], ids=["Pi-4", "Pi-5"])
@pytest.mark.parametrize("period", [40, 200, pytest.param(900, marks=pytest.mark.slow)])
def test_requests_that_come_and_go(device: Device, period: int) -> None:
    """What was learnt at work is not spoilt by rest, and rest does not lead to a bang."""
    run = simulate(device, 2 * period + 1200, air=lambda _: 40, work=lambda now: now % period < period / 2)
    assert max(run.celsius) <= warmest_allowed(device, 40)


@pytest.mark.parametrize(("device", "air"), [(PI4, 46), (PI5, 44)], ids=["Pi-4", "Pi-5"])
def test_work_after_a_long_rest_near_the_target(device: Device, air: int) -> None:
    """That nothing got hot at rest does not mean that work may."""
    run = simulate(device, 900, air=lambda _: air, work=lambda now: now > 600)
    assert max(run.celsius) <= plant_of(device).target + OVERSHOOT / 2


@pytest.mark.parametrize("device", [PI4, PI5], ids=["Pi-4", "Pi-5"])
@pytest.mark.parametrize("decode_seconds", [pytest.param(0.1, marks=pytest.mark.slow), 0.5])
def test_real_steps_and_rests(device: Device, decode_seconds: float) -> None:
    """Half a second is the longest that a step may take; the rests after it are longer than a look."""
    run = simulate(device, 1200, air=lambda _: 40, decode_seconds=decode_seconds)
    settled = run.since(700)
    assert max(run.celsius) <= warmest_allowed(device, 40)
    assert settled.swing <= SWING
    assert settled.speed >= SHARE_OF_BEST * device.best_constant(40, plant_of(device).target)


@pytest.mark.parametrize("shared", [0.5, 2.0])
@pytest.mark.parametrize("device", [PI4, PI5], ids=["Pi-4", "Pi-5"])
def test_power_by_threads_need_not_be_what_is_assumed(device: Device, shared: float) -> None:
    other = replace(device, shared_watts=device.shared_watts * shared)
    run = simulate(other, 1500, air=lambda _: 30)
    assert max(run.celsius) <= warmest_allowed(other, 30)
    assert run.since(900).swing <= SWING
    assert run.since(900).speed >= SHARE_OF_BEST * other.best_constant(30, plant_of(other).target)


@pytest.mark.slow
@pytest.mark.parametrize("air", [10, 20, 25, 30, 35, 40])
@pytest.mark.parametrize("device", [PI4, PI5], ids=["Pi-4", "Pi-5"])
def test_speeds_that_were_measured_are_made_the_most_of(device: Device, air: int) -> None:
    """Neither memory nor the cores bound this one alone: every number of threads has its place."""
    other = replace(device, speeds=(1, 1.3, 1.5, 1.6))
    plant = replace(plant_of(other), speeds=other.speeds)
    run = simulate(other, 3600, air=lambda _: air, plant=plant)
    assert max(run.celsius) <= warmest_allowed(other, air)
    assert run.since(2400).swing <= SWING
    assert run.since(2400).speed >= SHARE_OF_BEST * other.best_constant(air, plant.target)


def test_ungoverned_it_would_be_throttled() -> None:
    """The model is no comfortable one."""
    assert max(simulate(PI4, 900, air=lambda _: 35, governed=False).celsius) > FIRMWARE_BEGINS
    assert max(simulate(PI5, 900, air=lambda _: 30, governed=False).celsius) > FIRMWARE_BEGINS


def test_who_is_at_the_edge_is_not_cool_by_turns() -> None:
    """At full work it would settle at the target: each change of the state is an event."""
    air = 75 - PI4.settled(0, PI4.watts(4))
    states = [governor.decision.state for governor in simulate(PI4, 1800, air=lambda _: air).governors]
    assert sum(a != b for a, b in pairwise(states)) <= 5


@pytest.mark.parametrize("device", [PI4_FAN, PI5_COOLER], ids=["Pi-4-fan", "Pi-5-cooler"])
def test_a_well_cooled_one_is_left_alone(device: Device) -> None:
    run = simulate(device, 600, air=lambda _: 20)
    assert {governor.decision.duty for governor in run.governors} == {1.0}
    assert {governor.decision.state for governor in run.governors} == {"cool"}


# --- a thermometer that fails, from 600 s on ---

SENSORS: dict[str, Callable[[float, float], float | None]] = {
    "stuck": lambda now, celsius: 45.0 if now >= 600 else celsius,
    "stuck at zero": lambda now, celsius: 0.0 if now >= 600 else celsius,
    "jumped": lambda now, celsius: celsius - 35 if now >= 600 else celsius,
    "jumped up": lambda now, celsius: celsius + 40 if now >= 600 else celsius,
    "vanished": lambda now, celsius: None if now >= 600 else celsius,
}


@pytest.mark.parametrize("device", [PI4, PI5], ids=["Pi-4", "Pi-5"])
@pytest.mark.parametrize("fault", SENSORS)
def test_a_thermometer_that_fails_at_work(device: Device, fault: str) -> None:
    run = simulate(device, 1800, air=lambda _: 30, sensor=SENSORS[fault], noise=0.25)
    assert any(governor.decision.fault for governor in run.since(600, 610).governors)
    assert max(run.since(600, 630).celsius) <= FIRMWARE_BEGINS
    hot = sum(celsius > FIRMWARE_BEGINS + 1 for celsius in run.celsius) / len(run.celsius)
    assert hot < 0.1, "the firmware's own flag contradicts what is believed again too soon"


def test_a_thermometer_that_freezes_where_it_is() -> None:
    """It is put to the proof within a minute, and the safe side is taken."""
    frozen: list[float] = []

    def freeze(now: float, celsius: float) -> float:
        if now >= 300:
            frozen[:] = frozen or [celsius]
            return frozen[0]
        return celsius

    run = simulate(PI4, 900, air=lambda _: 30, sensor=freeze)
    assert run.governors[-1].decision.fault == "stuck"
    assert any(governor.decision.fault for governor in run.since(300, 390).governors)
    assert run.governors[-1].decision.effort == SAFE_EFFORT
    assert max(run.since(450).celsius) < plant_of(PI4).target


@pytest.mark.parametrize("sound", [601.0, 603.0])
def test_a_short_loss_is_bridged(sound: float) -> None:
    def gap(now: float, celsius: float) -> float | None:
        return None if 600 <= now < sound else celsius

    run = simulate(PI4, 900, air=lambda _: 30, sensor=gap)
    assert not any(governor.decision.fault for governor in run.governors)
    assert max(run.celsius) <= warmest_allowed(PI4, 30)


def test_it_governs_again_when_the_thermometer_is_back() -> None:
    run = simulate(
        PI4, 2400, air=lambda _: 30, sensor=lambda now, celsius: None if 600 <= now < 700 else celsius
    )
    assert run.since(600, 700).governors[-1].decision.state == "distrusting"
    assert max(run.celsius) <= warmest_allowed(PI4, 30)
    assert run.since(1800).speed >= SHARE_OF_BEST * PI4.best_constant(30, plant_of(PI4).target)


# --- single decisions ---

PLANT = Plant(75.0, (1.0, 1.7, 2.4, 3.0), 4, 80.0)


def decisions(plant: Plant, *readings: ThermalReading) -> list[tuple[int, int, float, bool]]:
    """Threads, threads for prompts, duty and refusal, a second apart."""
    governor, found = first(plant), []
    for second, reading in enumerate(readings):
        governor = decide(governor, reading, 100.0 + second, plant)
        decision = governor.decision
        found.append((decision.threads, decision.threads_batch, decision.duty, decision.refuse))
    return found


def test_without_a_thermometer_all_is_allowed_until_the_firmware_throttles() -> None:
    assert decisions(PLANT, *[ThermalReading()] * 60)[-1] == (4, 4, 1.0, False)
    hot = ThermalReading(flags=Flags(soft_limit=True))
    assert decisions(PLANT, hot)[-1][2] == LEAST_DUTY


def test_refusal_is_the_last_resort_and_ends_below_the_target() -> None:
    hot = [ThermalReading(80.0 + second % 2) for second in range(30)]
    found = decisions(PLANT, *hot)
    assert not any(refuse for *_, refuse in found[:19])
    assert found[-1][3]
    assert all(duty == LEAST_DUTY for _, _, duty, _ in found[5:]), "streams go on, slowly"
    cooler = [ThermalReading(80.0 - second / 2) for second in range(11)]
    found = decisions(PLANT, *hot, *cooler)
    assert [refuse for *_, refuse in found[-2:]] == [True, False]


def test_under_voltage_lowers_the_threads_and_they_come_back() -> None:
    fine, weak = ThermalReading(40.0, Flags()), ThermalReading(40.0, Flags(under_voltage=True))
    found = decisions(PLANT, fine, weak, *[fine] * 30)
    assert [threads for threads, *_ in found][:3] == [4, 2, 2]
    assert found[-1][:2] == (2, 2)
    assert decisions(PLANT, fine, *[weak] * 12)[-1][:2] == (1, 1)
    later = [ThermalReading(40.0 + second % 2, Flags()) for second in range(400)]
    assert decisions(PLANT, fine, weak, *later)[-1][:2] == (4, 4)


def test_reading_prompts_takes_no_more_power_than_is_allowed() -> None:
    plant = replace(PLANT, speeds=(0.96, 1.0, 0.87, 0.81))
    run = simulate(PI5, 900, air=lambda _: 30, plant=plant)
    last = run.governors[-1].decision
    assert (last.threads, last.threads_batch) == (1, 1)


def test_a_ceiling_is_kept_in_the_cold() -> None:
    governor = first(PLANT)
    for second in range(300):
        governor = decide(governor, ThermalReading(30.0 + second % 2), float(second), PLANT, ceiling=0.25)
    assert governor.decision.effort == 0.25
    assert governor.decision.duty < 1


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.floats(-40, 125)),
            st.booleans(),
            st.booleans(),
            st.floats(0, 1),
            st.floats(0, 100),
        ),
        max_size=60,
    )
)
def test_whatever_is_read_the_decision_can_be_carried_out(
    looks: list[tuple[float | None, bool, bool, float, float]],
) -> None:
    governor, now = first(PLANT), 0.0
    for celsius, weak, hot, busy, seconds in looks:
        now += seconds
        reading = ThermalReading(celsius, Flags(under_voltage=weak, soft_limit=hot))
        governor = decide(governor, reading, now, PLANT, busy=busy, ceiling=busy)
        decision = governor.decision
        assert 1 <= decision.threads <= 4
        assert 1 <= decision.threads_batch <= 4
        assert LEAST_DUTY <= decision.duty <= 1
        assert decision.effort <= max(busy, 0.0)

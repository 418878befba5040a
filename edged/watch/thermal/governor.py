"""Keeps the processor just under a temperature by threads and rests between steps, and so out of throttling.

A pure function of what was, what is read and the time. It regulates the effort, the mean power in parts
of what the fastest setting takes: proportionally to the distance from the target, with an integral that
finds what the surroundings allow. Threads and duty follow from the effort.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from edged.watch.thermal import threads as threads_of
from edged.watch.thermal.reading import ThermalReading
from edged.watch.thermal.trust import Fault, Trust, judge

LEAST_DUTY = 0.03
"""Streams slow down instead of stopping."""
SAFE_EFFORT = 0.2
"""While the thermometer is not believed: bearable for an uncooled Pi 5 in 40 °C."""
TOO_HOT_CELSIUS = 4.0
"""Above the target, at the least duty: new requests are refused when it is so hot for TOO_HOT_SECONDS."""
TOO_HOT_SECONDS = 20.0

_GAIN = 1 / 10  # effort per degree: full effort 10 degrees below the target
_INTEGRAL_SECONDS = 20.0
_RELEASE_SECONDS = 12.0  # what the integral has in excess goes slowly: noise must not wear it down
_BUSY_SECONDS = 10.0  # work is smoothed over this: many a rest is longer than the time between two looks
_AT_REST = 0.01  # of the time: who computes no more has no temperature that must move
_CELSIUS_SECONDS = (
    1.5  # and the temperature over this: what a single step of the engine does to the chip is not regulated
)
_MOST_STEP_SECONDS = 5.0  # a longer gap between looks counts as this
_STEADY_SECONDS = 20.0  # threads follow the effort smoothed over this
_STAYS_COOL, _GETS_COOL = (0.9, 0.95), (1.0, 0.98)  # least duty, and effort smoothed: no turns at the edge
_DWELL_SECONDS = 60.0  # between changes of threads
_WORTH = 1.05  # what another number of threads must gain to be taken
_MARGIN = 6.0  # degrees below the target at which more threads are tried though they can't be rested enough
_MARGIN_STEP, _MOST_MARGIN = 4.0, 40.0  # a try that failed wants more room the next time
_COLD = 15.0  # degrees below the target: all that was found of the surroundings is out of date
_VOLTAGE_SECONDS = 60.0  # without under-voltage, until one more thread is allowed again
_SAG_SECONDS = 5.0  # between two lowerings for under-voltage: the flag follows slowly

State = Literal["unmeasured", "cool", "governing", "too_hot", "distrusting"]


@dataclass(frozen=True, slots=True)
class Plant:
    """What is governed.

    Attributes:
        target: degrees Celsius to stay under.
        speeds: how fast it decodes with 1, 2, … threads, in any unit; its length is the most threads.
        threads_batch: the most threads for reading prompts.
        firmware_limit: degrees at which the firmware begins to throttle, where that is known.
    """

    target: float
    speeds: tuple[float, ...]
    threads_batch: int
    firmware_limit: float | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What the engine is to do.

    Attributes:
        threads: that decode.
        threads_batch: that read prompts.
        duty: the share of the time in which it computes, LEAST_DUTY to 1.
        refuse: whether new requests are refused as too_hot.
        state: in one word.
        fault: what is wrong with the thermometer.
        effort: the mean power that this comes to, as a share of the fastest setting's.
    """

    threads: int
    threads_batch: int
    duty: float
    refuse: bool = False
    state: State = "cool"
    fault: Fault | None = None
    effort: float = 1.0


@dataclass(frozen=True, slots=True)
class Governor:
    """What is remembered from one look to the next; `first` gives the first."""

    decision: Decision
    trust: Trust = field(default_factory=Trust)
    at: float | None = None
    integral: float = 0.0
    celsius: float | None = None
    busy: float = 1.0
    steady: float = 1.0  # the effort, smoothed
    chosen_at: float = 0.0  # when the number of threads was last changed
    margin: float = _MARGIN
    most_threads: int = 1 << 16  # for want of voltage
    voltage_at: float = 0.0  # when that was last changed
    hot_since: float | None = None


def first(plant: Plant) -> Governor:
    """Return the state of a governor that has seen nothing."""
    threads = threads_of.fastest(plant.speeds)
    return Governor(Decision(threads, plant.threads_batch, 1.0))


def renewed(was: Governor, plant: Plant) -> Governor:
    """Return the state for another plant: what is known of the surroundings holds for it, too."""
    threads = threads_of.fastest(plant.speeds)
    return replace(was, decision=replace(was.decision, threads=threads, threads_batch=plant.threads_batch))


def decide(
    was: Governor,
    reading: ThermalReading,
    now: float,
    plant: Plant,
    *,
    busy: float = 1.0,
    ceiling: float = 1.0,
) -> Governor:
    """Return the next state, with the decision in it.

    Args:
        was: the state before.
        reading: what the sensors say.
        now: seconds by a monotonic clock.
        plant: what is governed.
        busy: the share of the time in which the engine computed since the last look.
        ceiling: the most effort that is allowed, heat apart.
    """
    seconds = min(max(now - was.at, 0.0), _MOST_STEP_SECONDS) if was.at is not None else 0.0
    hot = reading.flags is not None and reading.flags.soft_limit
    busy = _smoothed(was.busy, busy, seconds, _BUSY_SECONDS)
    limit = plant.firmware_limit if hot else None
    trust = judge(was.trust, reading.celsius, now, busy=busy > _AT_REST, firmware_limit=limit)
    state = _with_voltage(replace(was, trust=trust, at=now, busy=busy), reading, now, plant)
    speeds = plant.speeds[: state.most_threads]
    if trust.celsius is None:
        return _without_temperature(state, plant, speeds, ceiling, hot=hot)
    before = was.celsius if was.celsius is not None else trust.celsius
    celsius = _smoothed(before, trust.celsius, seconds, _CELSIUS_SECONDS)
    error = plant.target - celsius
    state = _choose_threads(replace(state, celsius=celsius), speeds, error, now)
    fastest = threads_of.power(threads_of.fastest(plant.speeds))
    reach = min(ceiling, threads_of.power(state.decision.threads) / fastest)
    proportional = _GAIN * error
    integral = state.integral
    if error < 0 or busy >= state.decision.duty / 2:  # what rests teaches nothing of what work may take
        integral += _GAIN * error * seconds / _INTEGRAL_SECONDS
    beyond = max(0.0, integral + proportional - reach)
    integral = max(0.0, integral - beyond * min(1.0, seconds / _RELEASE_SECONDS))
    effort = max(0.0, min(integral + proportional, reach))
    state = replace(state, integral=integral, steady=_smoothed(was.steady, effort, seconds, _STEADY_SECONDS))
    if trust.in_doubt:
        effort /= 2
    return _decided(state, plant, effort, trust.celsius, now)


def _without_temperature(
    state: Governor, plant: Plant, speeds: Sequence[float], ceiling: float, *, hot: bool
) -> Governor:
    """Return what is done blindly: little with a failed sensor, without one all that firmware bears."""
    failed = state.trust.fault is not None
    effort = min(ceiling, 0.0 if hot else SAFE_EFFORT if failed else 1.0)
    budget = effort * threads_of.power(threads_of.fastest(plant.speeds))
    threads = threads_of.fastest(speeds) if effort >= 1 else threads_of.best(speeds, budget)
    decision = replace(state.decision, threads=threads, state="distrusting" if failed else "unmeasured")
    state = replace(state, decision=decision, integral=0.0, celsius=None, steady=effort, hot_since=None)
    return _with_effort(state, plant, effort, refuse=False)


def _choose_threads(state: Governor, speeds: Sequence[float], error: float, now: float) -> Governor:
    """Return the state with another number of threads, if that is worth it.

    Where resting is of no use (full duty, yet colder than the target) nobody knows what more threads would
    do: they are tried only with a margin, which grows when the try has failed.
    """
    threads = min(state.decision.threads, len(speeds))
    budget = state.steady * threads_of.power(threads_of.fastest(speeds))
    margin = _MARGIN if error > _COLD else state.margin
    more = error > margin
    wanted = threads_of.fastest(speeds) if more else threads_of.best(speeds, budget)
    gain = threads_of.speed(speeds, wanted, float("inf") if more else budget)
    worth = gain > _WORTH * threads_of.speed(speeds, threads, float("inf") if more else budget)
    if worth and now - state.chosen_at >= _DWELL_SECONDS:
        if wanted < threads:
            margin = min(margin + _MARGIN_STEP, _MOST_MARGIN)
        threads = wanted
    chosen_at = now if threads != state.decision.threads else state.chosen_at
    decision = replace(state.decision, threads=threads)
    return replace(state, decision=decision, chosen_at=chosen_at, margin=margin)


def _with_voltage(state: Governor, reading: ThermalReading, now: float, plant: Plant) -> Governor:
    """Return the state with fewer threads allowed while the supply sags, and one more a minute after."""
    most = min(state.most_threads, max(len(plant.speeds), plant.threads_batch))
    if reading.flags is not None and reading.flags.under_voltage:
        if state.most_threads == most and most > 1 and now - state.voltage_at < _SAG_SECONDS:
            return state
        most = max(1, min(most, state.decision.threads) // 2)
        return replace(state, most_threads=most, voltage_at=now)
    if state.most_threads == most and now - state.voltage_at >= _VOLTAGE_SECONDS:
        return replace(state, most_threads=most + 1, voltage_at=now)
    return state


def _decided(state: Governor, plant: Plant, effort: float, celsius: float, now: float) -> Governor:
    hot_since = None
    if celsius >= plant.target + TOO_HOT_CELSIUS or (state.decision.refuse and celsius > plant.target):
        hot_since = state.hot_since if state.hot_since is not None else now
    refuse = hot_since is not None and (state.decision.refuse or now - hot_since >= TOO_HOT_SECONDS)
    return _with_effort(replace(state, hot_since=hot_since), plant, effort, refuse=refuse)


def _with_effort(state: Governor, plant: Plant, effort: float, *, refuse: bool) -> Governor:
    """Return the state with the threads' duty, which comes to the effort."""
    fastest = threads_of.power(threads_of.fastest(plant.speeds))
    threads = state.decision.threads
    duty = max(LEAST_DUTY, min(1.0, effort * fastest / threads_of.power(threads)))
    budget = max(effort, state.steady) * fastest / duty if duty < 1 else effort * fastest
    most_batch = min(plant.threads_batch, state.most_threads)
    batch = most_batch if effort >= 1 else threads_of.widest(most_batch, budget)
    name: State = state.decision.state
    if state.celsius is not None:
        least_duty, least_steady = _STAYS_COOL if state.decision.state == "cool" else _GETS_COOL
        steady = state.steady * fastest / threads_of.power(threads)
        free = (
            plant.speeds[threads - 1] == max(plant.speeds) and duty >= least_duty and steady >= least_steady
        )
        name = "too_hot" if refuse else "cool" if free else "governing"
    decision = Decision(threads, batch, duty, refuse, name, state.trust.fault, effort)
    return replace(state, decision=decision)


def _smoothed(before: float, value: float, seconds: float, over: float) -> float:
    return before + (value - before) * seconds / (over + seconds)

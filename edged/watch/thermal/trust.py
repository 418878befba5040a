"""Judges a thermometer: one that sticks, jumps, vanishes or is contradicted is not believed for a while.

A pure function of what was seen before and what is seen now.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Fault = Literal["stuck", "jumped", "vanished", "contradicted"]

HOLD_SECONDS = 3.5
"""How long the last temperature stands in for one that is missing or can't be true."""
SAME_SECONDS = 60.0
"""A busy processor's temperature that has not moved so long is put to the proof: the load is lowered."""
PROOF_SECONDS = 20.0
"""If it has not moved after that either, the sensor sticks."""
DISTRUST_SECONDS = 30.0
"""How long a sensor must make sense before it is believed again; doubled by every further fault."""
MOST_DISTRUST_SECONDS = 86_400.0
_JUMP, _JUMP_PER_SECOND = 4.0, 8.0  # degrees: the most that a chip of some J/K does under some watts
_NEAR = 12.0  # degrees: what a chip does within the time that its last temperature stands in
_MOST_FAULTS = 16  # that are counted
_CONTRADICTED = 10.0  # degrees by which a thermometer is below what the firmware acts on


@dataclass(frozen=True, slots=True)
class Trust:
    """How far a thermometer is believed.

    Attributes:
        celsius: the temperature to go by; None: there is none.
        fault: why there is none; None where there never was a sensor.
        in_doubt: the load is to be lowered, to see whether the temperature follows.
    """

    celsius: float | None = None
    fault: Fault | None = None
    in_doubt: bool = False
    _seen: float | None = None  # the last reading, believed or not
    _seen_at: float = 0.0
    _same_since: float = 0.0
    _odd_since: float | None = None  # while the last temperature stands in
    _sound_since: float | None = None  # since a fault
    _faults: int = 0


def judge(
    trust: Trust, celsius: float | None, now: float, *, busy: bool, firmware_limit: float | None = None
) -> Trust:
    """Return what is to be thought of the thermometer now.

    Args:
        trust: what was thought before.
        celsius: what it says; None: nothing.
        now: by a monotonic clock.
        busy: whether the processor computes, so that its temperature must move.
        firmware_limit: the temperature that the firmware says is exceeded; None: it says no such thing.
    """
    steady = celsius is not None and _can_follow(trust, celsius, now)
    same = celsius is not None and celsius == trust._seen and busy
    looked = now - trust._seen_at <= HOLD_SECONDS  # who has not looked for long does not know
    since = trust._same_since if same and looked else now
    seen = replace(
        trust,
        in_doubt=False,
        _seen=celsius if celsius is not None else trust._seen,
        _seen_at=now if celsius is not None else trust._seen_at,
        _same_since=since,
    )
    lies = celsius is not None and firmware_limit is not None and celsius < firmware_limit - _CONTRADICTED
    still = now - since
    if trust.fault is not None:
        return _distrusted(seen, now, sound=steady and not lies and not (same and trust.fault == "stuck"))
    if trust._seen is None:
        return replace(seen, celsius=celsius)
    if still >= SAME_SECONDS + PROOF_SECONDS:
        return _fault(seen, "stuck")
    is_near = celsius is not None and trust.celsius is not None and abs(celsius - trust.celsius) <= _NEAR
    if lies or not (steady if trust._odd_since is None else is_near):
        odd_since = trust._odd_since if trust._odd_since is not None else now
        if now - odd_since < HOLD_SECONDS:
            return replace(seen, _odd_since=odd_since)
        return _fault(seen, "vanished" if celsius is None else "contradicted" if lies else "jumped")
    faults = 0 if now - (trust._sound_since or now) > MOST_DISTRUST_SECONDS else trust._faults
    return replace(seen, celsius=celsius, in_doubt=still >= SAME_SECONDS, _odd_since=None, _faults=faults)


def _distrusted(seen: Trust, now: float, *, sound: bool) -> Trust:
    """Return a sensor that has failed, which is believed again when it has made sense for long enough."""
    if not sound:
        return replace(seen, _sound_since=None)
    since = seen._sound_since if seen._sound_since is not None else now
    if now - since < min(DISTRUST_SECONDS * 2 ** (seen._faults - 1), MOST_DISTRUST_SECONDS):
        return replace(seen, _sound_since=since)
    return replace(seen, celsius=seen._seen, fault=None, _same_since=now, _sound_since=now)


def _fault(seen: Trust, fault: Fault) -> Trust:
    faults = min(seen._faults + 1, _MOST_FAULTS)
    return replace(seen, celsius=None, fault=fault, _odd_since=None, _sound_since=None, _faults=faults)


def _can_follow(trust: Trust, celsius: float, now: float) -> bool:
    """Say whether a chip can have come to this temperature since the last reading."""
    allowed = _JUMP + _JUMP_PER_SECOND * max(0.0, now - trust._seen_at)
    return trust._seen is None or abs(celsius - trust._seen) <= allowed

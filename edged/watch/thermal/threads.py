"""Which number of threads makes the most of a power that must not be exceeded.

Power is counted in parts of what the fastest setting takes (an effort of 1). What the cores share (caches,
memory) takes about as much as one core: n busy threads count n + 1. The governor corrects what that is off.
"""

from __future__ import annotations

from collections.abc import Sequence

_SHARED = 1.0  # cores' worth of power that any number of busy threads takes besides
_RESTING = (
    0.04  # of what is done, that each further thread costs where they rest: they spin before they sleep
)
_DECODING = (
    0.96,
    1.0,
    0.87,
    0.81,
)  # of a Pi 5 by threads: memory bounds it (32.4, 33.8, 29.4, 27.3 tokens/s)
_COMPUTING_EXPONENT = 0.85  # where the cores bound it: four threads are 3.2 times as fast as one


def assumed_speeds(threads: int, *, memory_bound: bool) -> tuple[float, ...]:
    """Return what decoding is expected to gain by threads, from 1 to so many, until it is measured."""
    if memory_bound:
        return tuple(_DECODING[min(n, len(_DECODING)) - 1] for n in range(1, threads + 1))
    return tuple(n**_COMPUTING_EXPONENT for n in range(1, threads + 1))


def counted_speeds(speeds: Sequence[float], *, fixed: bool) -> tuple[float, ...]:
    """Return speeds by which the number of threads that is configured is taken while nothing is held back.

    Args:
        speeds: as measured or assumed; as many as threads are configured.
        fixed: fewer threads may be used for want of voltage alone, not for heat.
    """
    most = speeds[-1]
    return (*(0.0 if fixed else min(speed, most) for speed in speeds[:-1]), most)


def power(threads: int) -> float:
    """Return what so many busy threads take, in cores' worth."""
    return threads + _SHARED


def fastest(speeds: Sequence[float]) -> int:
    """Return the number of threads that is fastest where power does not matter; the most of equals."""
    return max(range(1, len(speeds) + 1), key=lambda threads: (speeds[threads - 1], threads))


def speed(speeds: Sequence[float], threads: int, budget: float) -> float:
    """Return how fast so many threads are that rest as often as the budget, in cores' worth, demands."""
    share = budget / power(threads)
    return speeds[threads - 1] * (1.0 if share >= 1 else share * (1 - _RESTING * (threads - 1)))


def best(speeds: Sequence[float], budget: float) -> int:
    """Return the number of threads that gets most done with a power, in cores' worth."""
    return max(range(1, len(speeds) + 1), key=lambda threads: speed(speeds, threads, budget))


def widest(threads: int, budget: float) -> int:
    """Return the most threads, of so many, whose power a budget covers; one at least."""
    return max(1, min(threads, int(budget - _SHARED + 1e-9)))

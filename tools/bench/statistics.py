"""Statistics of few, noisy samples."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

CONFIDENCE = 0.95
RESAMPLES = 2_000
LEAST_SAMPLES = 5
"""With fewer, even all samples on one side of a bar happen by chance in more than one of 20 cases."""

Verdict = Literal["met", "missed", "unproven"]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies, between two of them by their distance."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with what is known of it.

    Attributes:
        median: of the samples.
        low: lower end of the interval.
        high: upper end of it.
        count: how many samples there are.
    """

    median: float
    low: float
    high: float
    count: int


def estimate(
    samples: Sequence[float], statistic: Callable[[Sequence[float]], float] = statistics.median
) -> Estimate:
    """Return the median of samples with the bootstrap interval of it, the same one at each call."""
    chance = random.Random(0)
    drawn = sorted(statistic(chance.choices(samples, k=len(samples))) for _ in range(RESAMPLES))
    tail = (1 - CONFIDENCE) / 2
    return Estimate(statistic(samples), percentile(drawn, tail), percentile(drawn, 1 - tail), len(samples))


def ratios(mine: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return the ratios of samples that were taken side by side."""
    return [a / b for a, b in zip(mine, theirs, strict=True)]


def verdict(found: Estimate, bar: float, *, at_least: bool) -> Verdict:
    """Say whether a figure keeps to its bar: `unproven` where the interval holds the bar, or samples lack."""
    if found.count < LEAST_SAMPLES:
        return "unproven"
    low, high = (found.low, found.high) if at_least else (-found.high, -found.low)
    limit = bar if at_least else -bar
    if low >= limit:
        return "met"
    return "missed" if high < limit else "unproven"


def worst_verdict(samples: Sequence[float], bar: float) -> Verdict:
    """Say whether not one of the samples is above a bar; a single one is proof that some are."""
    if max(samples) > bar:
        return "missed"
    return "met" if len(samples) >= LEAST_SAMPLES else "unproven"

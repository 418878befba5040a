"""Counts of measured values by size, as Prometheus keeps them: cheap to keep, and added up over a fleet."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate, pairwise


class Histogram:
    """How often a value was at most so large.

    Attributes:
        bounds: the upper ends of the buckets, rising; the last bucket has none.
        sum: of all values.

    Args:
        bounds: see there.
    """

    def __init__(self, *bounds: float) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    @property
    def count(self) -> int:
        """Return how many values there were."""
        return sum(self._counts)

    @property
    def cumulative(self) -> list[int]:
        """Return for each bound how many values were not above it."""
        return list(accumulate(self._counts[:-1]))

    def observe(self, value: float) -> None:
        """Take a value in."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def quantile(self, share: float) -> float | None:
        """Return the value that this share is not above, within its bucket by proportion; None: no values.

        What is above the last bound counts as that bound.
        """
        wanted, below = share * self.count, 0
        for (low, high), count in zip(pairwise((0.0, *self.bounds)), self._counts, strict=False):
            if count and below + count >= wanted:
                return low + (high - low) * max(0.0, wanted - below) / count
            below += count
        return self.bounds[-1] if self.count else None

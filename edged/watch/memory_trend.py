"""How fast memory goes."""

from __future__ import annotations

import math
from dataclasses import dataclass

_SECONDS = 0.5  # over which the fall is averaged: one leap between two readings is no trend


def smoothed(before: float, value: float, seconds: float, over: float) -> float:
    """Return the mean of a quantity over the last seconds, the later ones counting more."""
    return value + (before - value) * math.exp(-seconds / over)


@dataclass(frozen=True, slots=True)
class Trend:
    """What others leave: what is available, and what the engine would give back.

    Attributes:
        left: those bytes.
        at: when they were read.
        falling: bytes a second by which they grow fewer; negative while they grow more.
    """

    left: int
    at: float
    falling: float = 0.0

    @classmethod
    def after(cls, before: Trend | None, left: int, at: float, *, comparable: bool) -> Trend:
        """Return the trend after one more reading.

        Args:
            before: the trend until then.
            left: those bytes now.
            at: now.
            comparable: whether they mean the same: what an engine that ends had is not all back at once.
        """
        if before is None:
            return cls(left, at)
        seconds = at - before.at
        if seconds <= 0 or not comparable:
            return cls(left, at, before.falling)
        return cls(left, at, smoothed(before.falling, (before.left - left) / seconds, seconds, _SECONDS))

    def seconds_to(self, bytes_left: int) -> float:
        """Return how long it is until so many more bytes are gone, as it goes now."""
        return bytes_left / self.falling if self.falling > 0 else math.inf

"""How fast memory goes."""

from __future__ import annotations

import math
from dataclasses import dataclass

_SECONDS = 0.5  # over which the fall is averaged, and that readings close together are apart at most


def smoothed(before: float, value: float, seconds: float, over: float) -> float:
    """Return the mean of a quantity over the last seconds, the later ones counting more."""
    return value + (before - value) * math.exp(-seconds / over)


@dataclass(frozen=True, slots=True)
class Trend:
    """What others leave: what is available, and what the engine would give back.

    Attributes:
        left: those bytes.
        at: when they were read.
        falling: bytes a second by which they grow fewer, averaged; negative while they grow more.
        still_falling: the same as of the last two readings alone, where these were close together; else 0.
    """

    left: int
    at: float
    falling: float = 0.0
    still_falling: float = 0.0

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
        rate = (before.left - left) / seconds
        falling = smoothed(before.falling, rate, seconds, _SECONDS)
        return cls(left, at, falling, rate if seconds <= _SECONDS else 0.0)

    def may_end_in(self, bytes_left: int) -> float:
        """Return in how many seconds so many more bytes may be gone; one leap is enough for that."""
        return _seconds(bytes_left, self.falling)

    def ends_in(self, bytes_left: int) -> float:
        """Return the same where it is seen to go on falling: not infinite only between close readings."""
        return _seconds(bytes_left, min(self.falling, self.still_falling))


def _seconds(bytes_left: int, falling: float) -> float:
    return bytes_left / falling if falling > 0 else math.inf

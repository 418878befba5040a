"""Rests in proportion to what was computed, so that the share of the time spent computing is as wanted."""

from __future__ import annotations

import time
from collections.abc import Callable

PERIOD_SECONDS = 0.1
LEAST_REST_SECONDS = 0.02
"""Work and rest take turns in such a period or a longer one, and no rest is shorter: the library's threads
spin for some 10 ms after a pass before they sleep, by which a short rest would lose what it spares."""


class Duty:
    """Says when the next step may come.

    What was computed is owed a rest, however long it took; short ones come together first. Time without work
    is a rest, too. A change of the share holds for a rest that has begun.

    Attributes:
        share: of the time, that may be spent computing; more than 0, 1: all of it.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.share = 1.0
        self._clock = clock
        self._begun = self._ended = clock()
        self._computed = 0.0  # seconds that are not rested for yet

    def rest(self) -> float:
        """Return for how many seconds more nothing is to be computed; 0 or less: none."""
        owed = self._computed * (1 / self.share - 1)
        is_due = owed >= max(LEAST_REST_SECONDS, PERIOD_SECONDS * (1 - self.share))
        return owed - (self._clock() - self._ended) if is_due else 0.0

    def begin(self) -> None:
        """Note that a step begins."""
        self._begun = self._clock()
        rested = self._begun - self._ended
        self._computed = max(0.0, self._computed - rested / (1 / self.share - 1)) if self.share < 1 else 0.0

    def end(self) -> None:
        """Note that the step has ended."""
        self._ended = self._clock()
        self._computed += self._ended - self._begun

"""How many threads a machine that others use, too, has room for.

The threads of a pass wait for each other hundreds of times in it. Where others keep the cores busy, one of
them is always off its core, and all wait: many threads are then slower than one, by far.
"""

from __future__ import annotations

import time
from collections.abc import Callable

WINDOW_SECONDS = 0.3
"""Of passes that are judged together."""
CALM_SHARE = 0.9
"""Of its time that the computing thread has a core when nobody else wants it."""
TRIAL_SECONDS = 5.0
"""How long a thread more is on trial; and how long a calm machine is watched before the first trial."""
MOST_PAUSE_SECONDS = 80.0


class Crowding:
    """Lowers the number of threads where they are in each other's way, and tries more again.

    What is looked at is the share of a pass for which the thread that computes had a core: it spins while it
    waits for the others, but not for long. With n threads at a share s no more is done than s * n at best;
    one less that is undisturbed does n - 1. After each trial that failed the next comes twice as late.

    Attributes:
        threads: how many there is room for.

    Args:
        most: how many there may be.
        clock: seconds, monotonic.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.threads = self._most = most
        self._clock = clock
        self._begin_window()
        self._pause = TRIAL_SECONDS
        self._on_trial = False
        self._changed_at = clock()

    def limit(self, most: int) -> None:
        """Let there be no more than so many from now on: where there is no room for all, no more for that."""
        self.threads = min(self.threads, most) if self.threads < self._most else most
        self._most = most
        self._begin_window()

    def learn(self, threads: int, on_core: float, seconds: float) -> bool:
        """Take note of a pass; say whether there is room for another number of threads now.

        Args:
            threads: how many it was computed with.
            on_core: seconds for which the thread that computes had a core.
            seconds: how long it took.
        """
        if threads < self.threads or self._most == 1:
            return False  # this says nothing of as many as there may be
        self._on_core += on_core
        self._seconds += seconds
        if self._seconds < WINDOW_SECONDS:
            return False
        share = self._on_core / self._seconds
        self._begin_window()
        since = self._clock() - self._changed_at
        if share * self.threads < self.threads - 1:
            failed = self._on_trial and since < TRIAL_SECONDS
            self._pause = min(MOST_PAUSE_SECONDS, 2 * self._pause) if failed else TRIAL_SECONDS
            return self._change(-1)
        if share >= CALM_SHARE and since >= self._pause and self.threads < self._most:
            return self._change(1)
        return False

    def _change(self, by: int) -> bool:
        self.threads += by
        self._on_trial = by > 0
        self._changed_at = self._clock()
        return True

    def _begin_window(self) -> None:
        self._on_core = self._seconds = 0.0

"""How long the engine may be silent before it is taken for hung."""

from __future__ import annotations

import time
from collections.abc import Callable

from edged.engine.messages import GOVERNED_STEP_SECONDS

LOAD_SECONDS = 180.0  # a cold card of 10 MB/s reads 1.8 GB in that time
HEARTBEAT_GRACE_SECONDS = 10.0  # the engine's heartbeat at rest comes every 5 s
STEPS = 10
FADING = 0.98


class Patience:
    """A bound on silence that follows how fast the engine has been.

    Attributes:
        stall_seconds: an engine that owes an answer may be silent for so long, however fast it has been.
        duty: the share of the time in which it is to compute: it may rest for as long beyond that as this
            wants after its longest step.

    Args:
        stall_seconds: see the attribute.
        clock: seconds, monotonic.
    """

    def __init__(self, stall_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.stall_seconds = stall_seconds
        self.duty = 1.0
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Wait for a new process, which has a model to load."""
        self._is_loaded = False
        self._longest_step = 0.0  # seconds computed between signs of life while an answer was owed; fades
        self._hear()

    def loaded(self) -> None:
        """Expect it to answer as fast as it can, which its first steps at the end of loading have shown."""
        self._is_loaded = True
        self._longest_step = self._clock() - self._heard_at
        self._hear()

    def expect(self) -> None:
        """Begin to be impatient: from now on an answer is owed."""
        self._hear()

    def heard(self, *, owing: bool) -> None:
        """Take a sign of life: while an answer is owed, none that a resting engine sends, too."""
        if self._is_loaded and owing:
            self._longest_step = max(self.silent_seconds * self.duty, FADING * self._longest_step)
        self._hear()

    def excuse(self, seconds: float) -> None:
        """Do not count so much of the silence: others kept the engine from the cores meanwhile."""
        self._excused += seconds

    def exceeded(self, *, owing: bool) -> float | None:
        """Return the seconds of silence if they are too many."""
        silent = self.silent_seconds
        return silent if silent - self._excused > self.bound_seconds(owing=owing) else None

    @property
    def silent_seconds(self) -> float:
        """Return how long ago the last sign of life was."""
        return self._clock() - self._heard_at

    def bound_seconds(self, *, owing: bool) -> float:
        """Return how long it may be silent."""
        if not self._is_loaded:
            return LOAD_SECONDS
        if not owing:
            return self.stall_seconds + HEARTBEAT_GRACE_SECONDS
        # A machine that others keep busy is slow, not hung.
        rest = max(self._longest_step, GOVERNED_STEP_SECONDS) * (1 / self.duty - 1)
        return rest + max(self.stall_seconds, min(STEPS * self._longest_step, LOAD_SECONDS))

    def _hear(self) -> None:
        self._heard_at = self._clock()
        self._excused = 0.0

"""A part of the daemon, and how long it has stood still."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edged.progress import Progress

MOST_REBUILDS = 3
"""Each leaves a thread behind that stands still; then it is time for a new process."""


class Part:
    """A part under watch.

    Attributes:
        name: what it is called in log, status and events.
        still_seconds: how long it has owed a step and taken none, as far as the watch was awake.
        stalled: whether that is too long.
        stalls: how often it was.

    Args:
        name: see the attribute.
        progress: gives the steps that it takes now; None while there is nobody to take any.
        usual_seconds: gives how long a step may take, beside its allowance.
        rebuild: gives up who stands still and begins with another, called on the event loop; None: there is
            no other without a new process.
    """

    def __init__(
        self,
        name: str,
        progress: Callable[[], Progress | None],
        usual_seconds: Callable[[], float],
        rebuild: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.still_seconds = 0.0
        self.stalled = False
        self.stalls = 0
        self.usual_seconds = usual_seconds
        self._progress = progress
        self._rebuild = rebuild
        self._seen: tuple[Progress | None, int, bool] = (None, 0, False)

    @property
    def bound_seconds(self) -> float:
        """Return how long its present step may take."""
        progress = self._progress()
        return self.usual_seconds() + (progress.allowance if progress else 0.0)

    @property
    def remedy(self) -> Callable[[], None] | None:
        """Return what has another take its place, unless that has not helped."""
        return self._rebuild if self.stalls <= MOST_REBUILDS else None

    def look(self, seconds: float) -> bool:
        """Look at it after so many seconds; say whether it has come to a stop, or gets on again."""
        progress = self._progress()
        seen = (progress, progress.steps, progress.owes) if progress else (None, 0, False)
        stands = seen == self._seen and seen[2]
        self.still_seconds = self.still_seconds + seconds if stands else 0.0
        self._seen = seen
        before, self.stalled = self.stalled, self.still_seconds > self.bound_seconds
        self.stalls += self.stalled and not before
        return self.stalled != before

    def fields(self) -> dict[str, Any]:
        """Return what the status tells of it."""
        return {
            "state": "stalled" if self.stalled else "ok",
            "still_seconds": round(self.still_seconds, 1),
            "bound_seconds": round(self.bound_seconds, 1),
            "stalls": self.stalls,
        }

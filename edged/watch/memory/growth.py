"""Notices an engine that keeps more and more memory while it rests."""

from __future__ import annotations

import math
from dataclasses import dataclass

REST_SECONDS = 5.0
"""How long it must rest before what it has counts: it gives memory back at rest."""
LEAST_SECONDS_BETWEEN = 600.0
"""Between two restarts for growth: a leak so fast is not mended by them."""


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What the daemon knows of its engine.

    Attributes:
        pid: its process; None while there is none.
        planned_bytes: anonymous memory that it was planned to take, its caches at their largest included.
        at_rest: it is ready, and nothing runs in it or waits for it.
        used_at: when it was asked or answered last, or became ready, by the monotonic clock.
    """

    pid: int | None = None
    planned_bytes: int = 0
    at_rest: bool = False
    used_at: float = 0.0


class GrowthGuard:
    """Compares what the engine has at rest with what it was planned to take, or first had.

    Args:
        most_bytes: how much more is too much.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._pid: int | None = None
        self._first: int | None = None
        self._rests_since: float | None = None
        self._restarted = -math.inf

    def grown(self, facts: EngineFacts, anonymous: int, now: float) -> int | None:
        """Return by how many bytes too much it has grown, if it is to be started anew for that."""
        if facts.pid != self._pid:
            self._pid, self._first, self._rests_since = facts.pid, None, None
        if facts.pid is None or not facts.at_rest:
            self._rests_since = None
            return None
        if self._rests_since is None:
            self._rests_since = now
        if now - self._rests_since < REST_SECONDS:
            return None
        if self._first is None:
            self._first = anonymous
        growth = anonymous - max(self._first, facts.planned_bytes)
        if growth <= self._most_bytes or now - self._restarted < LEAST_SECONDS_BETWEEN:
            return None
        self._restarted = now
        return growth

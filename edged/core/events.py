"""What happened, for whoever wants to know: the log, and operators by way of a frontend."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

_log = structlog.get_logger(__name__)

BURST = 5
REFILL_SECONDS = 10.0
"""Of one type no more than BURST events at once are told, and one each REFILL_SECONDS after that: an event
is written to the card, and some of them a stranger can cause. Those in between are counted."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        type: its name, a level of a topic.
        data: the facts, as JSON can carry them; no texts of requests.
    """

    type: str
    data: Mapping[str, Any]


@dataclass(slots=True)
class _Bucket:
    tokens: float
    filled: float
    suppressed: int = 0


class Events:
    """Tells events to the log and to listeners.

    Attributes:
        listeners: each is told every event that is not suppressed.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.listeners: list[Callable[[Event], None]] = []
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def emit(self, type: str, *, limited: bool = True, **data: Any) -> None:
        """Tell that something happened.

        Args:
            type: its name.
            limited: whether a burst of it is held back; False where each one counts and they can't be many.
            data: the facts.
        """
        _log.info("event", type=type, **data)
        if limited and not self._may_tell(type, data):
            return
        for listener in self.listeners:
            listener(Event(type, data))

    def _may_tell(self, type: str, data: dict[str, Any]) -> bool:
        """Say whether there is room for one more of that type; its facts then count those held back."""
        now = self._clock()
        bucket = self._buckets.setdefault(type, _Bucket(BURST, now))
        bucket.tokens = min(BURST, bucket.tokens + (now - bucket.filled) / REFILL_SECONDS)
        bucket.filled = now
        if bucket.tokens < 1:
            bucket.suppressed += 1
            return False
        bucket.tokens -= 1
        if bucket.suppressed:
            data["suppressed"] = bucket.suppressed
            bucket.suppressed = 0
        return True

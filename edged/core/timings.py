"""When what happened to a request, and the timings that its requester is told."""

from __future__ import annotations

import time
from collections.abc import Callable

from edged.protocol import Timings


class Stopwatch:
    """Notes the times of one request.

    Args:
        waited: seconds that it waited in daemons before this one.
        clock: seconds, monotonic.
    """

    def __init__(self, waited: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._admitted = clock() - waited
        self._started: float | None = None
        self._first_token: float | None = None
        self._last_token: float | None = None
        self._paused: float | None = None  # since when, or since when the last time
        self._pauses = 0.0  # seconds, in the midst of the answer

    @property
    def waited(self) -> float:
        """The seconds since admission, in earlier daemons too."""
        return self._clock() - self._admitted

    @waited.setter
    def waited(self, seconds: float) -> None:
        self._admitted = self._clock() - seconds

    def note_start(self) -> None:
        """Note that the request begins to be computed, or goes on after a pause."""
        now = self._clock()
        if self._started is None or self._paused is None:
            self._started = now
        elif self._first_token is None:
            self._started += now - self._paused  # it was queued for longer
        else:
            self._pauses += now - self._paused

    def note_pause(self) -> None:
        """Note that the request is not computed for a while."""
        self._paused = self._clock()

    def note_token(self) -> None:
        """Note that a part of the answer has come."""
        self._last_token = self._clock()
        self._first_token = self._first_token or self._last_token

    def timings(self, prompt_tokens: int, completion_tokens: int) -> Timings:
        """Return how long each stage took; None what was not come to.

        Args:
            prompt_tokens: those that were computed.
            completion_tokens: those of the answer.
        """
        started = self._started if self._started is not None else self._clock()
        queued_ms = round((started - self._admitted) * 1000, 1)
        if self._first_token is None or self._last_token is None:
            return Timings(queued_ms)
        reading = max(self._first_token - started, 1e-6)
        generating = self._last_token - self._first_token - self._pauses
        steps = completion_tokens - 1
        return Timings(
            queued_ms,
            first_token_ms=round((self._first_token - self._admitted) * 1000, 1),
            prompt_tokens_per_second=round(prompt_tokens / reading, 2),
            tokens_per_second=round(steps / generating, 2) if steps > 0 and generating > 0 else None,
        )

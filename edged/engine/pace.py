"""How many prompt tokens a step may read, so that it keeps to its time."""

from __future__ import annotations

# With no stream waiting for its next token, a longer step only costs a newcomer some of its first wait.
ALONE_FACTOR = 4
FEWEST_TOKENS = 8
MOST_DELAY = 4
_WEIGHT = 0.3  # of the newest step in the running means


class Pace:
    """Learns what a prompt token costs and turns a time budget into a count of tokens.

    Args:
        step_seconds: how long a step may take while other requests stream.
        most_tokens: the most that one decode takes.
        token_seconds: a first measurement of a prompt token's cost.
    """

    def __init__(self, *, step_seconds: float, most_tokens: int, token_seconds: float) -> None:
        self._step_seconds = step_seconds
        self._most_tokens = most_tokens
        self._token_seconds = token_seconds
        self._streams_seconds = 0.0  # of a step that only streams

    def prompt_tokens(self, streams: int) -> int:
        """Return how many prompt tokens to read beside so many streams."""
        budget = self._step_seconds - self._streams_seconds if streams else self._step_seconds * ALONE_FACTOR
        room = self._most_tokens - streams
        return max(1, min(room, max(FEWEST_TOKENS, int(budget / self._token_seconds))))

    def seconds(self, prompt_tokens: int, streams: int) -> float:
        """Return how long a step is expected to take."""
        return prompt_tokens * self._token_seconds + (self._streams_seconds if streams else 0.0)

    def learn(self, prompt_tokens: int, streams: int, seconds: float) -> None:
        """Take note of a step that was measured; one that was held up tells little about the next."""
        if self._streams_seconds:
            seconds = min(seconds, MOST_DELAY * self.seconds(prompt_tokens, streams))
        if not prompt_tokens:
            self._streams_seconds += _WEIGHT * (seconds - self._streams_seconds)
        elif prompt_tokens >= FEWEST_TOKENS:
            cost = (seconds - (self._streams_seconds if streams else 0.0)) / prompt_tokens
            self._token_seconds += _WEIGHT * (max(cost, 1e-6) - self._token_seconds)

"""How fast answers come: measured as they do, for waits that can be told in seconds."""

from __future__ import annotations

from edged.protocol import Done

_WEIGHT = 0.2  # of the newest request in the running means
UNMEASURED_SECONDS = 5.0  # told while no request has finished yet


class Speed:
    """Running means over finished requests.

    Attributes:
        prompt_tokens_per_second: while a prompt was read; None until measured.
        tokens_per_second: of one request's answer; None until measured.
        service_seconds: from the start of a request to its end; None until measured.
    """

    def __init__(self) -> None:
        self.prompt_tokens_per_second: float | None = None
        self.tokens_per_second: float | None = None
        self.service_seconds: float | None = None

    def learn(self, done: Done, service_seconds: float) -> None:
        """Take note of a request that was answered."""
        self.prompt_tokens_per_second = _mean(
            self.prompt_tokens_per_second, done.timings.prompt_tokens_per_second
        )
        self.tokens_per_second = _mean(self.tokens_per_second, done.timings.tokens_per_second)
        self.service_seconds = _mean(self.service_seconds, service_seconds)

    def wait_seconds(self, ahead: int, at_once: int) -> float:
        """Return how long it takes until `ahead` requests have ended, of which `at_once` run at a time."""
        if self.service_seconds is None:
            return UNMEASURED_SECONDS
        return max(0.1, round(self.service_seconds * ahead / max(1, at_once), 1))


def _mean(mean: float | None, value: float | None) -> float | None:
    if value is None:
        return mean
    return value if mean is None else mean + _WEIGHT * (value - mean)

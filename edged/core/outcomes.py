"""What became of requests: counted, logged, and measured for waits that can be told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from edged.core.histogram import Histogram
from edged.core.speed import Speed
from edged.core.ticket import Ticket
from edged.errors import EdgedError, ErrorCode
from edged.protocol import Done, Failed

_log = structlog.get_logger(__name__)


class Outcomes:
    """Requests since the start, by outcome.

    Attributes:
        accepted: let in.
        done: answered.
        failures: let in and ended by an error, by its code.
        refusals: not let in, by the error's code.
        cancelled: ended by their requester.
        prompt_tokens: of the prompts that were answered.
        cached_tokens: those of them that had been computed before.
        answer_tokens: of the answers that have ended, however they did.
        first_token_seconds: from a request's arrival to the first token of its answer.
        tokens_per_second: of each answer.

    Args:
        speed: learns from what is answered.
    """

    def __init__(self, speed: Speed) -> None:
        self.accepted = self.done = self.cancelled = 0
        self.failures: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.prompt_tokens = self.cached_tokens = self.answer_tokens = 0
        self.first_token_seconds = Histogram(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
        self.tokens_per_second = Histogram(1, 2, 5, 10, 15, 20, 30, 50, 100, 200)
        self._speed = speed

    @property
    def failed(self) -> int:
        """Return how many were let in and ended by an error."""
        return self.failures.total()

    @contextmanager
    def admission(self) -> Iterator[None]:
        """Take note of a request that is refused while the context lasts."""
        try:
            yield
        except EdgedError as error:
            self.refusals[error.code] += 1
            raise

    def note_accepted(self, ticket: Ticket, *, waiting: int, running: int) -> None:
        """Take note of a request that was let in, and of how many there are."""
        self.accepted += 1
        _log.info(
            "accepted",
            request_id=ticket.id,
            client=ticket.client.name,
            way=ticket.client.way,
            prompt_tokens=len(ticket.prompt) if ticket.prompt else None,
            waiting=waiting,
            running=running,
        )

    @contextmanager
    def embedding(self) -> Iterator[None]:
        """Take note of a request for embeddings that was let in, and of how the context ends."""
        self.accepted += 1
        try:
            yield
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        except BaseException as error:
            self.failures[error.code if isinstance(error, EdgedError) else ErrorCode.INTERNAL] += 1
            raise
        self.done += 1

    def note_end(self, ticket: Ticket, seconds: float | None) -> None:
        """Take note of a request that has ended, so many seconds after its turn had come, if it had."""
        end = ticket.terminal
        if not ticket.admitted:
            if isinstance(end, Failed):
                self.refusals[end.code] += 1
            return
        self.answer_tokens += ticket.completion_tokens
        fields: dict[str, Any] = {"request_id": ticket.id, "client": ticket.client.name}
        if not isinstance(end, Done):
            assert end is not None
            self.failures[end.code] += 1
            _log.warning("failed", **fields, code=end.code, reason=end.message)
            return
        if end.finish_reason == "cancelled":
            self.cancelled += 1
        else:
            self.done += 1
            if seconds is not None:
                self._speed.learn(end, seconds)
        self._measure(end)
        _log.info(
            "ended",
            **fields,
            finish_reason=end.finish_reason,
            completion_tokens=end.usage.completion_tokens,
            tokens_per_second=end.timings.tokens_per_second,
        )

    def _measure(self, end: Done) -> None:
        self.prompt_tokens += end.usage.prompt_tokens
        self.cached_tokens += end.usage.cached_tokens
        if end.timings.first_token_ms is not None:
            self.first_token_seconds.observe(end.timings.first_token_ms / 1000)
        if end.timings.tokens_per_second is not None:
            self.tokens_per_second.observe(end.timings.tokens_per_second)

"""What became of requests: counted, logged, and measured for waits that can be told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from edged.core.speed import Speed
from edged.core.ticket import Ticket
from edged.protocol import Done

_log = structlog.get_logger(__name__)


class Outcomes:
    """Requests since the start, by outcome.

    Attributes:
        accepted: let in.
        done: answered.
        failed: ended by an error.
        cancelled: ended by their requester.

    Args:
        speed: learns from what is answered.
    """

    def __init__(self, speed: Speed) -> None:
        self.accepted = self.done = self.failed = self.cancelled = 0
        self._speed = speed

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
        except BaseException:
            self.failed += 1
            raise
        self.done += 1

    def note_end(self, ticket: Ticket, seconds: float | None) -> None:
        """Take note of a request that has ended, so many seconds after its turn had come, if it had."""
        end = ticket.terminal
        fields: dict[str, Any] = {"request_id": ticket.id, "client": ticket.client.name}
        if not isinstance(end, Done):
            assert end is not None
            self.failed += 1
            _log.warning("failed", **fields, code=end.code, reason=end.message)
            return
        if end.finish_reason == "cancelled":
            self.cancelled += 1
        else:
            self.done += 1
            if seconds is not None:
                self._speed.learn(end, seconds)
        _log.info(
            "ended",
            **fields,
            finish_reason=end.finish_reason,
            completion_tokens=end.usage.completion_tokens,
            tokens_per_second=end.timings.tokens_per_second,
        )

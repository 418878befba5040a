"""What requests meet while memory is short: whoever watches over it says so, and the core acts on it."""

from __future__ import annotations

from collections.abc import Callable

from edged.core.direct import Direct
from edged.core.dispatcher import Dispatcher
from edged.core.registry import Registry
from edged.engine.client import Engine
from edged.errors import EdgedError, ErrorCode
from edged.settings.schema import LimitsTable

SHED_TOKENS = 128
"""Tokens of an answer while memory is short, where the request does not say; who asks for more waits."""


class Shortage:
    """Lets requests wait or refuses them, and has the engine end, until there is memory again.

    What is written down waits; what is not has somebody who waits for it, and is told to come again.

    Attributes:
        retry_after: says in how many seconds a request may be let in, at the earliest.

    Args:
        engine: whose memory is the most of it.
        registry: whose requests are in hand.
        dispatcher: begins them.
        direct: answers those that have no ticket.
    """

    def __init__(self, engine: Engine, *, registry: Registry, dispatcher: Dispatcher, direct: Direct) -> None:
        self.retry_after: Callable[[], float | None] = lambda: None
        self._engine = engine
        self._registry = registry
        self._dispatcher = dispatcher
        self._direct = direct
        self._reason: str | None = None  # while memory is short

    def refusal(self) -> EdgedError | None:
        """Return why nothing is let in that can't wait in the journal; None: it is."""
        reason, retry_after = self._reason, self.retry_after()
        if reason is None and self._engine.state == "low_memory":
            reason, retry_after = self._engine.supervisor.reason, self._engine.supervisor.next_try_seconds
        if reason is None:
            return None
        return EdgedError(
            ErrorCode.LOW_MEMORY, f"memory is short: {reason}; ask again later", retry_after_s=retry_after
        )

    def limits(self, limits: LimitsTable) -> LimitsTable:
        """Return the limits as they are while memory is as short as it is."""
        if self._reason is None or limits.max_tokens_default <= SHED_TOKENS:
            return limits
        return limits.model_copy(update={"max_tokens_default": SHED_TOKENS})

    def shed(self, reason: str) -> None:
        """Begin one request at a time, and of those that wait none that asks for a long answer."""
        self._reason = reason
        for ticket in list(self._registry.active()):
            asked = ticket.request.max_tokens or 0
            if ticket.state == "queued" and not ticket.durable and asked > SHED_TOKENS:
                ticket.fail(self._too_long(asked, reason))
        self._dispatcher.most_tokens = SHED_TOKENS
        self._dispatcher.limit(1)

    def evict(self, reason: str) -> None:
        """End the engine, and let none start; what is written down goes on when there is one again."""
        self._reason = reason
        self._dispatcher.limit(0)
        self.refuse_unwritten()
        self._engine.evict(reason)

    def load_again(self) -> None:
        """Let the engine be started again."""
        self._engine.admit()

    def end(self) -> None:
        """Serve as usual."""
        self._reason = None
        self._dispatcher.most_tokens = None
        self._dispatcher.limit(None)

    def refuse_unwritten(self) -> None:
        """Refuse what is in hand and can't wait in the journal."""
        error = self.refusal()
        assert error is not None
        for ticket in list(self._registry.active()):
            if not ticket.durable:
                ticket.fail(error)
        self._direct.stop(error)

    def _too_long(self, asked: int, reason: str) -> EdgedError:
        return EdgedError(
            ErrorCode.LOW_MEMORY,
            f"max_tokens is {asked}; {SHED_TOKENS} are allowed while memory is short: {reason}; ask for less "
            "or later",
            retry_after_s=self.retry_after(),
            param="max_tokens",
        )

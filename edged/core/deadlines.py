"""How long a request may wait: its ttl, and its end when nothing has begun by then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edged.core.dispatcher import Dispatcher
from edged.core.speed import Speed
from edged.core.ticket import Ticket
from edged.errors import EdgedError, ErrorCode
from edged.settings.schema import LimitsTable


class Deadlines:
    """Ends tickets that have waited for too long.

    Args:
        limits: as they are now.
        dispatcher: how many wait and run.
        speed: when to ask again.
    """

    def __init__(self, limits: Callable[[], LimitsTable], dispatcher: Dispatcher, speed: Speed) -> None:
        self._limits = limits
        self._dispatcher = dispatcher
        self._speed = speed
        self._timers: dict[Ticket, asyncio.TimerHandle] = {}

    def left(self, ticket: Ticket) -> float:
        """Return the seconds that a ticket may still wait."""
        return (ticket.request.ttl_s or self._limits().ttl_seconds) - ticket.waited

    def watch(self, ticket: Ticket) -> None:
        """End a ticket when its time is over."""
        loop = asyncio.get_running_loop()
        self._timers[ticket] = loop.call_later(self.left(ticket), self._look, ticket)

    def correct(self, ticket: Ticket, waited: float) -> None:
        """Take note that a ticket that is watched has waited so many seconds already."""
        ticket.waited = waited
        self.forget(ticket)
        if self.left(ticket) > 0:
            self.watch(ticket)
        else:
            self.expire(ticket)

    def forget(self, ticket: Ticket) -> None:
        """Watch a ticket no longer."""
        if timer := self._timers.pop(ticket, None):
            timer.cancel()

    def expire(self, ticket: Ticket) -> None:
        """End a ticket whose time is over."""
        waiting, running = self._dispatcher.waiting, len(self._dispatcher.running)
        ticket.fail(
            EdgedError(
                ErrorCode.EXPIRED,
                f"not begun within {ticket.waited:.1f} s, its ttl: {waiting} requests are waiting, "
                f"{running} running; ask again later, or with a longer ttl_s",
                retry_after_s=self._speed.wait_seconds(waiting, running),
            )
        )

    def _look(self, ticket: Ticket) -> None:
        if ticket.state == "queued":
            self.expire(ticket)

"""Streaming one ticket's frames as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from edged.frontends.http.sse import EventStream
from edged.protocol import Done, Failed, Frame

if TYPE_CHECKING:
    from edged.core import Admitted


class Follower:
    """Sends a ticket's frames in the turn of the event loop in which they come, while the client takes them.

    A task that waited for each would cost every token another turn, which is most of what it costs. While
    the client does not read, text waits in the ticket, joined.

    Args:
        entry: the ticket; of a repeated one that has ended, the end alone is told.
        render: makes events of a frame; raises what ends the stream.
        events: where they go.
    """

    def __init__(self, entry: Admitted, render: Callable[[Frame], bytes], events: EventStream) -> None:
        self._ticket = entry.ticket
        self._render = render
        self._events = events
        self._wants_end_alone = entry.repeated and entry.ticket.terminal is not None
        self._over = False
        self._fault: Exception | None = None
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Follow the ticket to its end.

        Raises:
            ConnectionError: the client has gone.
            Exception: what `render` raised.
        """
        self._ticket.on_change = self._go_on
        try:
            self._go_on()
            while not self._over:
                await self._wake.wait()
                self._wake.clear()
                await self._events.drain()
                self._go_on()
        finally:
            self._ticket.on_change = lambda: None
        if self._fault is not None:
            raise self._fault

    def _go_on(self) -> None:
        """Send what there is; the task is woken only where it has something to do."""
        try:
            while not self._over and self._events.is_clear and (frame := self._next()):
                self._events.put(self._render(frame))
                self._over = isinstance(frame, Done | Failed)
        except Exception as fault:
            self._fault, self._over = fault, True
        if self._over or not self._events.is_clear:
            self._wake.set()

    def _next(self) -> Frame | None:
        return self._ticket.terminal if self._wants_end_alone else self._ticket.take_frame()

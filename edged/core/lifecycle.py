"""A ticket's way through the core: made, admitted, ended, or left to the next daemon."""

from __future__ import annotations

import asyncio
import uuid

from edged.core.admission import Admission
from edged.core.deadlines import Deadlines
from edged.core.dispatcher import Dispatcher
from edged.core.outcomes import Outcomes
from edged.core.preparer import Preparer
from edged.core.registry import Registry
from edged.core.ticket import Ticket
from edged.engine.client import Engine
from edged.errors import EdgedError
from edged.protocol import Client, Request


class Lifecycle:
    """Makes tickets, and leads each from step to step.

    Args:
        engine: what computes.
        registry: where a ticket is found from its beginning on.
        deadlines: end what waits for too long.
        admission: says whether anything is let in still.
        preparer: makes the prompt.
        dispatcher: says when its turn is.
        outcomes: take note of what was accepted and what has ended.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        registry: Registry,
        deadlines: Deadlines,
        admission: Admission,
        preparer: Preparer,
        dispatcher: Dispatcher,
        outcomes: Outcomes,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._deadlines = deadlines
        self._admission = admission
        self._preparer = preparer
        self._dispatcher = dispatcher
        self._outcomes = outcomes
        self._admissions: dict[Ticket, asyncio.Task[None]] = {}

    def make_ticket(
        self,
        request: Request,
        client: Client,
        *,
        id: str | None = None,
        body_hash: bytes | None = None,
        attempt: int = 1,
        waited: float = 0.0,
    ) -> Ticket:
        """Make a request's ticket, and begin to count the time that it may wait."""
        ticket = Ticket(
            request,
            client,
            id=id or request.id or uuid.uuid4().hex,
            body_hash=body_hash or self._registry.body_hash(request),
            on_cancel=self._cancel,
            on_finish=self._finished,
            attempt=attempt,
            waited=waited,
        )
        self._registry.add(ticket)
        self._deadlines.watch(ticket)
        return ticket

    def admit_soon(self, ticket: Ticket) -> asyncio.Task[None]:
        """Begin to admit a ticket."""
        task = asyncio.create_task(self._admit(ticket), name=f"admit {ticket.id}")
        self._admissions[ticket] = task
        return task

    def suspend(self, ticket: Ticket) -> None:
        """Leave a request that is written down to the next daemon."""
        if ticket.terminal is None and not ticket.suspended:
            ticket.suspend()
            self._leave(ticket)

    async def _admit(self, ticket: Ticket) -> None:
        """Have the prompt prepared if the engine serves now, and let the ticket wait for its turn."""
        fault = None
        try:
            if self._engine.is_ready:
                # A session's earlier turns are known only when its turn comes; its question must fit anyway.
                await self._preparer.prepare(ticket)
            self._admission.check_open()
        except EdgedError as error:
            fault = error
        del self._admissions[ticket]
        if fault is not None:
            ticket.fail(fault)
            return
        self._dispatcher.enqueue(ticket)
        self._outcomes.note_accepted(
            ticket, waiting=self._dispatcher.waiting, running=len(self._dispatcher.running)
        )

    def _cancel(self, ticket: Ticket) -> None:
        if ticket.generation is None or not self._engine.cancel(ticket.generation):
            ticket.finish("cancelled")

    def _finished(self, ticket: Ticket) -> None:
        """Make room, keep what is worth keeping, and start the next."""
        seconds = self._leave(ticket)
        self._registry.keep(ticket)
        self._outcomes.note_end(ticket, seconds)
        self._dispatcher.dispatch()

    def _leave(self, ticket: Ticket) -> float | None:
        self._deadlines.forget(ticket)
        if admission := self._admissions.pop(ticket, None):
            admission.cancel()
        return self._dispatcher.leave(ticket)

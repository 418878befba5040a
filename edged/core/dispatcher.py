"""Whose turn it is: what waits is started as soon as the engine has room for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass

from edged.core.preparer import Preparer, generation_of
from edged.core.queue import FairQueue
from edged.core.sessions import Session, SessionKey, Sessions
from edged.core.ticket import Ticket
from edged.engine.client import Engine
from edged.errors import EdgedError
from edged.protocol import Done


@dataclass(slots=True)
class _Run:
    """A ticket's turn.

    Attributes:
        begun: when, by the monotonic clock.
        session: the conversation that it goes on with.
        preparation: what makes its prompt, while it is at it.
    """

    begun: float
    session: Session | None = None
    preparation: asyncio.Task[None] | None = None


class Dispatcher:
    """Starts tickets that wait; those of one session run one after the other.

    Attributes:
        closed: nothing is started any more.

    Args:
        engine: what computes.
        queue: says who is next.
        sessions: conversations kept on the device.
        preparer: makes the prompts that could not be made before.
    """

    def __init__(self, engine: Engine, queue: FairQueue, sessions: Sessions, preparer: Preparer) -> None:
        self.closed = False
        self._engine = engine
        self._queue = queue
        self._sessions = sessions
        self._preparer = preparer
        self._runs: dict[Ticket, _Run] = {}
        self._model_key = ""

    @property
    def running(self) -> Collection[Ticket]:
        """Return the tickets whose turn it is."""
        return self._runs.keys()

    @property
    def waiting(self) -> int:
        """Return how many tickets wait for their turn."""
        return len(self._queue)

    def enqueue(self, ticket: Ticket) -> None:
        """Let a ticket wait for its turn, which may have come."""
        ticket.admitted = True
        self._engine.wake()
        self._queue.put(ticket)
        ahead = self.waiting - 1
        self.dispatch()
        ticket.accept(queue_position=ahead if ticket in self._queue else 0)

    def dispatch(self) -> None:
        """Start as many tickets as the engine has room for."""
        if self.closed or not self._engine.is_ready or self._engine.plan is None:
            return
        while len(self._runs) < self._engine.plan.load.sequences:
            ticket = self._queue.take(self._may_run, _cost)
            if ticket is None:
                return
            self._begin(ticket)

    def forget_prompts(self) -> None:
        """Have what waits prepared anew if the model is another: it has other tokens."""
        plan = self._engine.plan
        if plan is not None and self._model_key != plan.key:
            self._model_key = plan.key
            for ticket in self._queue:
                ticket.prompt = None

    def leave(self, ticket: Ticket) -> float | None:
        """Make room: the ticket has ended, or is left to another daemon.

        Returns:
            How long its turn has been, in seconds; None if it had none.
        """
        run = self._runs.pop(ticket, None)
        if ticket.admitted:
            computed = len(ticket.prompt or ()) + ticket.completion_tokens if ticket.generation else 0
            self._queue.leave(ticket, computed)
        if ticket.generation is not None:
            self._engine.cancel(ticket.generation)  # failed from outside: it may still be running
        if run is None:
            return None
        if run.preparation is not None:
            run.preparation.cancel()
        self._keep_turn(ticket)
        return time.monotonic() - run.begun

    def _may_run(self, ticket: Ticket) -> bool:
        key = _session_key(ticket)
        return key is None or not self._sessions.is_running(key)

    def _begin(self, ticket: Ticket) -> None:
        run = self._runs[ticket] = _Run(time.monotonic())
        if key := _session_key(ticket):
            run.session = self._sessions.begin(key)
        if ticket.prompt is not None and key is None:
            self._generate(ticket)
        else:
            run.preparation = asyncio.create_task(self._prepare(ticket, run), name=f"prepare {ticket.id}")

    async def _prepare(self, ticket: Ticket, run: _Run) -> None:
        """Prepare a prompt that could not be prepared before, and generate."""
        fault = None
        try:
            await self._preparer.prepare(ticket, run.session)
        except EdgedError as error:
            fault = error
        run.preparation = None
        if fault is not None:
            ticket.fail(fault)
        else:
            self._generate(ticket)

    def _generate(self, ticket: Ticket) -> None:
        generation = generation_of(ticket)
        ticket.start(generation)
        self._engine.generate(generation)

    def _keep_turn(self, ticket: Ticket) -> None:
        if (key := _session_key(ticket)) is None:
            return
        end = ticket.terminal
        answer = end.text if isinstance(end, Done) and end.finish_reason != "cancelled" else None
        self._sessions.end(key, ticket.request, answer, dropped=ticket.session_turns_dropped)


def _session_key(ticket: Ticket) -> SessionKey | None:
    name = ticket.request.session
    return SessionKey(*ticket.client.identity, name) if name is not None else None


def _cost(ticket: Ticket) -> float:
    return len(ticket.prompt or ()) + ticket.max_tokens

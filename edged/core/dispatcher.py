"""Whose turn it is: what waits is started as soon as the engine has room for it, or made room for."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from functools import partial

import structlog

from edged.core.preemption import gives_way, surplus
from edged.core.preparer import Preparer, generation_of
from edged.core.queue import FairQueue, level_of
from edged.core.sessions import SessionKey, Sessions
from edged.core.ticket import Ticket
from edged.core.turn import Turn
from edged.engine.client import Engine
from edged.engine.generation import model_changed
from edged.errors import EdgedError
from edged.protocol import Done

_log = structlog.get_logger(__name__)


class Dispatcher:
    """Starts tickets that wait; those of one session run one after the other.

    A ticket that runs gives its place to a more urgent one: it is put back into the queue, keeps what it has,
    and goes on when its turn comes again.

    Attributes:
        closed: only what has begun goes on.
        most_tokens: what asks for a longer answer is not begun; None: any length is.
        put_back_total: how often a request was put back.

    Args:
        engine: what computes.
        queue: says who is next.
        sessions: conversations kept on the device.
        preparer: makes the prompts that could not be made before.
    """

    def __init__(self, engine: Engine, queue: FairQueue, sessions: Sessions, preparer: Preparer) -> None:
        self.closed = False
        self.most_tokens: int | None = None
        self.put_back_total = 0
        self._engine = engine
        self._queue = queue
        self._sessions = sessions
        self._preparer = preparer
        self._running: dict[Ticket, Turn] = {}
        self._drained = asyncio.Event()  # nothing runs
        self._drained.set()
        self._put_back: dict[Ticket, Turn] = {}
        self._limit: int | None = None
        self._prepared_for: tuple[str, int] | None = None  # the model, and its context

    @property
    def running(self) -> Collection[Ticket]:
        """Return the tickets whose turn it is."""
        return self._running.keys()

    @property
    def put_back(self) -> Collection[Ticket]:
        """Return the tickets that wait to go on."""
        return self._put_back.keys()

    @property
    def waiting(self) -> int:
        """Return how many tickets wait for their turn, or to go on."""
        return len(self._queue)

    async def drained(self) -> None:
        """Return when nothing runs."""
        await self._drained.wait()

    def enqueue(self, ticket: Ticket) -> None:
        """Let a ticket wait for its turn, which may have come."""
        ticket.admitted = True
        self._engine.wake()
        self._queue.put(ticket)
        ahead = self.waiting - 1
        self.dispatch()
        ticket.accept(queue_position=ahead if ticket in self._queue else 0)

    def limit(self, most: int | None) -> None:
        """Let no more than so many run at a time, None: as many as the engine has room for.

        What runs beyond is put back: the lowest priority first, of that what was begun last.
        """
        self._limit = most
        self.dispatch()

    def dispatch(self) -> None:
        """Put back what is too much, start what there is room for, and make room for what is urgent."""
        if self._limit is not None:
            self._have_leave(surplus(self._running.values(), self._limit))
        plan = self._engine.plan
        if not self._engine.is_ready or plan is None:
            return
        most = plan.load.sequences if self._limit is None else min(plan.load.sequences, self._limit)
        while len(self._running) < most:
            ticket = self._queue.take(self._may_run, _cost)
            if ticket is None:
                return
            self._begin(ticket)
        self._make_room(most)

    def forget_prompts(self) -> None:
        """Have what waits prepared anew if the model is another, or its context: other tokens fit it."""
        plan = self._engine.plan
        if plan is not None and self._prepared_for != (plan.key, self._engine.context):
            self._prepared_for = plan.key, self._engine.context
            for ticket in self._queue:
                if ticket.generation is None:
                    ticket.prompt = None

    def leave(self, ticket: Ticket) -> float | None:
        """Make room: the ticket has ended, or is left to another daemon.

        Returns:
            How long its turn has been, in seconds; None if it had none.
        """
        if ticket.admitted:
            self._queue.leave(ticket, _used(ticket))
        if ticket.generation is not None:
            self._engine.cancel(ticket.generation)  # failed from outside: it may still be running
        turn = self._take_running(ticket) or self._put_back.pop(ticket, None)
        if turn is None:
            return None
        if turn.preparation is not None:
            turn.preparation.cancel()
        self._keep_turn(ticket)
        return turn.seconds

    # --- starting, and going on ---

    def _may_run(self, ticket: Ticket) -> bool:
        if ticket in self._put_back:
            return True
        if self.most_tokens is not None and (ticket.request.max_tokens or 0) > self.most_tokens:
            return False
        key = _session_key(ticket)
        return not self.closed and (key is None or not self._sessions.is_running(key))

    def _begin(self, ticket: Ticket) -> None:
        turn = self._put_back.pop(ticket, None) or Turn(ticket)
        self._running[ticket] = turn
        self._drained.clear()
        turn.begin(self._queue.taken_level(ticket))
        if ticket.generation is not None:
            self._go_on(turn)
            return
        if key := _session_key(ticket):
            turn.session = self._sessions.begin(key)
        if ticket.prompt is not None and key is None:
            self._generate(turn)
        else:
            turn.preparation = asyncio.create_task(self._prepare(turn), name=f"prepare {ticket.id}")

    async def _prepare(self, turn: Turn) -> None:
        """Prepare a prompt that could not be prepared before, and generate."""
        fault = None
        try:
            await self._preparer.prepare(turn.ticket, turn.session)
        except EdgedError as error:
            fault = error
        turn.preparation = None
        if fault is not None:
            turn.ticket.fail(fault)
        else:
            self._generate(turn)
            self.dispatch()  # from now on it can give way

    def _generate(self, turn: Turn) -> None:
        assert self._engine.plan is not None
        turn.model_key = self._engine.plan.key
        turn.ticket.start(generation_of(turn.ticket))
        self._compute(turn)

    def _go_on(self, turn: Turn) -> None:
        assert self._engine.plan is not None
        if turn.model_key != self._engine.plan.key:
            turn.ticket.fail(model_changed())
            return
        turn.ticket.resume()
        self._compute(turn)

    def _compute(self, turn: Turn) -> None:
        assert turn.ticket.generation is not None
        self._engine.generate(turn.ticket.generation)

    # --- putting back ---

    def _make_room(self, most: int) -> None:
        """Have so many of those that run leave as there are more urgent ones waiting."""
        room = most - sum(not turn.is_leaving for turn in self._running.values())
        for ticket in self._queue.ranked(self._may_run):
            if room > 0:
                room -= 1
            elif turn := gives_way(self._running.values(), level_of(ticket)):
                self._have_leave([turn])

    def _have_leave(self, turns: Collection[Turn]) -> None:
        for turn in turns:
            assert turn.ticket.generation is not None
            turn.is_leaving = True
            self._engine.put_back(turn.ticket.generation).add_done_callback(partial(self._has_left, turn))

    def _has_left(self, turn: Turn, leaving: asyncio.Future[bool]) -> None:
        """Let a turn that is out of the engine wait again, unless it has ended."""
        ticket = turn.ticket
        if ticket not in self._running or not leaving.result():
            return
        self._take_running(ticket)
        self._put_back[ticket] = turn
        turn.pause()
        ticket.pause()
        self.put_back_total += 1
        self._queue.put_back(ticket, _used(ticket))
        _log.info("put back", request_id=ticket.id, client=ticket.client.name, times=turn.times_put_back)
        self.dispatch()

    # --- the end ---

    def _take_running(self, ticket: Ticket) -> Turn | None:
        turn = self._running.pop(ticket, None)
        if not self._running:
            self._drained.set()
        return turn

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


def _used(ticket: Ticket) -> float:
    return len(ticket.prompt or ()) + ticket.completion_tokens if ticket.generation else 0

"""The core as frontends see it: where requests come in, are found again, and end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

from edged.clock import Clock
from edged.core import status
from edged.core.admission import Admission, check_size, no_model, stopping
from edged.core.deadlines import Deadlines
from edged.core.direct import Direct
from edged.core.dispatcher import Dispatcher
from edged.core.durable import Durable
from edged.core.engine_events import EngineEvents
from edged.core.events import Events
from edged.core.lifecycle import Lifecycle
from edged.core.outcomes import Outcomes
from edged.core.preparer import Preparer
from edged.core.queue import FairQueue
from edged.core.registry import Registry
from edged.core.sessions import Sessions
from edged.core.shortage import Shortage
from edged.core.speed import Speed
from edged.core.status import ModelInfo, Phase
from edged.core.ticket import Admitted, Ticket
from edged.engine.client import Engine
from edged.errors import EdgedError, ErrorCode
from edged.protocol import Client, Failed, Request
from edged.settings import Settings
from edged.settings.schema import LimitsTable


class Core:
    """Takes requests from frontends and leads each to its end.

    Attributes:
        settings: as they are now.
        engine: what computes.
        clock: for time stamps.
        started: when the core was made, by the monotonic clock.
        events: what happened.
        status_parts: what frontends add to the status.
        speed: as measured.
        outcomes: requests by outcome.
        registry: requests that can be asked about.
        queue: tickets that wait.
        sessions: conversations kept on the device.
        dispatcher: whose turn it is.
        admission: who may come in.
        deadlines: how long each may wait.
        lifecycle: a ticket's way.
        direct: answers what needs no ticket.
        shortage: what requests meet while memory is short.
        durable: requests that outlive the daemon; None where no frontend needs them.
        last_words: why it ends, for whom the daemon takes its leave of.
        stalled: parts of the daemon that have something to do and do not get on.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        durable: Durable | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self.engine = engine
        self.clock = clock or Clock()
        self.started = time.monotonic()
        self.events = Events()
        self.status_parts: dict[str, Callable[[], Any]] = {}
        self.last_words = "edged was stopped"
        self.stalled: tuple[str, ...] = ()
        self.speed = Speed()
        self.outcomes = Outcomes(self.speed)
        self.registry = Registry(settings.journal.keep_results_seconds)
        self.queue = FairQueue()
        self.sessions = Sessions(settings.sessions)
        preparer = Preparer(engine, self._limits)
        self.dispatcher = Dispatcher(engine, self.queue, self.sessions, preparer)
        self.admission = Admission(
            self._limits, registry=self.registry, dispatcher=self.dispatcher, speed=self.speed, engine=engine
        )
        self.deadlines = Deadlines(self._limits, self.dispatcher, self.speed)
        self.lifecycle = Lifecycle(
            engine,
            registry=self.registry,
            deadlines=self.deadlines,
            admission=self.admission,
            preparer=preparer,
            dispatcher=self.dispatcher,
            outcomes=self.outcomes,
        )
        self.direct = Direct(engine, self._limits, admission=self.admission, outcomes=self.outcomes)
        self.shortage = Shortage(
            engine, registry=self.registry, dispatcher=self.dispatcher, direct=self.direct
        )
        self.admission.low_memory = self.shortage.refusal
        self.durable = durable
        if durable is not None:
            durable.core = self
        self._engine_events = EngineEvents(engine, self.events)
        engine.on_change = self._engine_changed

    # --- what it is doing ---

    @property
    def stopping(self) -> bool:
        """Say whether nothing is let in any more."""
        return self.dispatcher.closed

    @property
    def running(self) -> int:
        """Return how many requests are being computed."""
        return len(self.dispatcher.running)

    @property
    def phase(self) -> Phase:
        """Return what the daemon is doing in one word."""
        return status.phase(self)

    @property
    def ready(self) -> bool:
        """Say whether a request would be let in and computed now."""
        return self.phase == "ready" and self.admission.too_hot is None

    @property
    def model(self) -> ModelInfo | None:
        """Return the model that is loaded, or being loaded."""
        return status.model(self)

    def status(self) -> dict[str, Any]:
        """Return the daemon's state as an operator sees it."""
        return status.status(self)

    # --- requests ---

    async def submit(self, request: Request, client: Client) -> Admitted:
        """Let a request in that lives as long as its connection.

        Returns once it is accepted: while the engine serves, its prompt is known to fit by then.

        Raises:
            EdgedError: it is refused; with the figures and the remedy.
        """
        self.admission.check_open()
        check_size(request, self.settings.limits)
        if earlier := self.registry.duplicate(client, request):
            return Admitted(earlier, repeated=True)
        self.admission.check_memory()
        self.admission.check_limits(client)
        ticket = self.lifecycle.make_ticket(request, client)
        try:
            await asyncio.wait([self.lifecycle.admit_soon(ticket)])
        except BaseException:
            ticket.cancel()
            self.registry.remove(ticket)
            raise
        if isinstance(ticket.terminal, Failed) and not ticket.admitted:
            self.registry.remove(ticket)
            raise ticket.terminal.error()
        return Admitted(ticket)

    def find(self, client: Client, request_id: str) -> Ticket | None:
        """Return a client's request: in hand, or finished and still kept."""
        return self.registry.find(client, request_id)

    def in_hand(self) -> list[Ticket]:
        """Return all clients' requests that have not ended."""
        return list(self.registry.active())

    def abandon(self, ticket: Ticket, unheard: int) -> None:
        """End a request that nobody listens to any more."""
        ticket.fail(
            EdgedError(
                ErrorCode.ABANDONED,
                f"nobody was subscribed to the last {unheard} chunks of the answer, so it was given up "
                "(mqtt.abandon_unheard); subscribe before you ask",
            )
        )

    # --- the daemon ---

    def look_for_model(self) -> None:
        """Try at once to load a model that could not be loaded: its file may have come."""
        if self.engine.state == "failed":
            self.engine.supervisor.retry_now()

    def reload(self, settings: Settings) -> None:
        """Take over what can change while requests run."""
        self.settings = settings
        self.sessions.bounds = settings.sessions
        self.registry.keep_seconds = settings.journal.keep_results_seconds
        if self.durable is not None:
            self.durable.reload(settings.journal)
        self.engine.supervisor.patience.stall_seconds = settings.watch.liveness.engine_seconds

    def close(self) -> None:
        """Let nothing in any more, and start nothing but what has begun and was put back."""
        self.dispatcher.closed = True

    async def stop(self, budget_seconds: float) -> None:
        """Let nothing in any more and give what runs so many seconds to end.

        What is written down and has not ended by then is left for the next daemon.
        """
        self.close()
        begun = [*self.dispatcher.running, *self.dispatcher.put_back]
        for ticket in self.in_hand():
            if ticket not in begun:
                self._give_up(ticket)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(budget_seconds):
                for ticket in begun:
                    await ticket.wait()
                await self.direct.wait()
        self.direct.stop(stopping())
        for ticket in begun:
            if ticket.terminal is None:
                self._give_up(ticket)

    def _give_up(self, ticket: Ticket) -> None:
        if ticket.durable:
            self.lifecycle.suspend(ticket)
        else:
            ticket.fail(stopping())

    def _engine_changed(self) -> None:
        """Start what waited for the engine, or refuse it where there will be none."""
        self._engine_events.tell()
        if self.engine.state == "failed":
            for ticket in list(self.queue):
                ticket.fail(no_model(self.engine))
        elif self.engine.state == "low_memory":
            self.shortage.refuse_unwritten()
        else:
            self.dispatcher.forget_prompts()
            self.dispatcher.dispatch()

    def _limits(self) -> LimitsTable:
        return self.shortage.limits(self.settings.limits)

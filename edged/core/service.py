"""The core: admission, order, sessions and the way of each request to the engine and back."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import structlog

from edged.clock import Clock
from edged.core import status
from edged.core.admission import answer_tokens, check_size
from edged.core.durable import Durable
from edged.core.events import Events
from edged.core.queue import FairQueue
from edged.core.registry import Registry
from edged.core.sessions import Session, SessionKey, Sessions, conversation
from edged.core.speed import Speed
from edged.core.status import ModelInfo, Phase
from edged.core.ticket import Admitted, Ticket
from edged.engine.client import Engine
from edged.engine.generation import Generation
from edged.errors import EdgedError, ErrorCode, invalid
from edged.protocol import SEED_MAX, Client, Done, Failed, Message, Request
from edged.settings import Settings

_log = structlog.get_logger(__name__)


STOPPING = "edged is stopping; ask again when it is back"


@dataclass(slots=True)
class Counters:
    """Requests since the start, by outcome."""

    accepted: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0


class Core:
    """Takes requests from frontends, decides what runs when, and gives answers back.

    Attributes:
        settings: as they are now.
        engine: what computes.
        counters: requests by outcome.
        speed: as measured.
        sessions: conversations kept on the device.
        queue: tickets that wait.
        events: what happened.
        durable: requests that outlive the daemon; None where no frontend needs them.
        clock: for time stamps.
        status_parts: what frontends add to the status.
        started: when the core was made, by the monotonic clock.
        stopping: nothing is let in any more.
        registry: requests that can be asked about.
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
        self.counters = Counters()
        self.speed = Speed()
        self.sessions = Sessions(settings.sessions)
        self.queue = FairQueue()
        self.events = Events()
        self.durable = durable
        if durable is not None:
            durable.core = self
        self.clock = clock or Clock()
        self.status_parts: dict[str, Callable[[], Any]] = {}
        self.started = time.monotonic()
        self.stopping = False
        self._model_key = ""
        self._engine_was: tuple[str, str | None] = ("starting", None)
        self.registry = Registry(settings.journal.keep_results_seconds)
        self._running: dict[Ticket, float] = {}  # to the time of their start
        self._preparing: dict[Ticket, asyncio.Task[None]] = {}
        self._expiries: dict[Ticket, asyncio.TimerHandle] = {}
        self._sessions_of: dict[Ticket, Session] = {}
        engine.on_change = self._engine_changed

    # --- for frontends ---

    @property
    def running(self) -> int:
        """Return how many requests are being computed."""
        return len(self._running)

    @property
    def phase(self) -> Phase:
        """Return what the daemon is doing in one word."""
        return status.phase(self)

    @property
    def ready(self) -> bool:
        """Say whether a request would be computed now."""
        return self.phase == "ready"

    @property
    def model(self) -> ModelInfo | None:
        """Return the model that is loaded, or being loaded."""
        return status.model(self)

    def status(self) -> dict[str, Any]:
        """Return the daemon's state as an operator sees it."""
        return status.status(self)

    async def submit(self, request: Request, client: Client) -> Admitted:
        """Let a request in that lives as long as its connection.

        Returns once it is accepted: while the engine serves, its prompt is known to fit by then.

        Raises:
            EdgedError: it is refused; with the figures and the remedy.
        """
        self._check_open()
        check_size(request, self.settings.limits)
        if earlier := self.registry.duplicate(client, request):
            return Admitted(earlier, repeated=True)
        self._check_limits(client)
        ticket = self.make_ticket(request, client)
        try:
            await asyncio.wait([self.admit_soon(ticket)])
        except BaseException:
            ticket.cancel()
            self.registry.remove(ticket)
            raise
        if isinstance(ticket.terminal, Failed) and not ticket.admitted:
            self.registry.remove(ticket)
            raise ticket.terminal.error()
        return Admitted(ticket)

    def abandon(self, ticket: Ticket, unheard: int) -> None:
        """End a request that nobody listens to any more."""
        ticket.fail(
            EdgedError(
                ErrorCode.ABANDONED,
                f"nobody was subscribed to the last {unheard} chunks of the answer, so it was given up "
                "(mqtt.abandon_unheard); subscribe before you ask",
            )
        )

    def find(self, client: Client, request_id: str) -> Ticket | None:
        """Return a client's request: in hand, or finished and still kept."""
        return self.registry.find(client, request_id)

    def in_hand(self) -> list[Ticket]:
        """Return all clients' requests that have not ended."""
        return list(self.registry.active())

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
        self.engine.supervisor.stall_seconds = settings.watch.liveness.engine_seconds

    def close(self) -> None:
        """Let nothing in any more."""
        self.stopping = True

    async def stop(self, budget_seconds: float) -> None:
        """Let nothing in any more and give what runs so many seconds to end.

        What is written down and has not ended by then is left for the next daemon.
        """
        self.close()
        error = EdgedError(ErrorCode.SHUTTING_DOWN, STOPPING)
        for ticket in [*self.registry.active()]:
            if ticket not in self._running:
                self._give_up(ticket, error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(budget_seconds):
                for ticket in list(self._running):
                    await ticket.wait()
        for ticket in list(self._running):
            self._give_up(ticket, error)

    def _give_up(self, ticket: Ticket, error: EdgedError) -> None:
        if ticket.durable:
            self.suspend(ticket)
        else:
            ticket.fail(error)

    # --- admission ---

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
            body_hash=body_hash or self.registry.body_hash(request),
            on_cancel=self._cancel,
            on_finish=self._finished,
            attempt=attempt,
            waited=waited,
        )
        self.registry.add(ticket)
        loop = asyncio.get_running_loop()
        self._expiries[ticket] = loop.call_later(self.ttl(request) - waited, self.expire, ticket)
        return ticket

    def ttl(self, request: Request) -> float:
        """Return the seconds that a request may wait."""
        return request.ttl_s or self.settings.limits.ttl_seconds

    def set_waited(self, ticket: Ticket, seconds: float) -> None:
        """Correct how long a ticket has waited already."""
        ticket.waited = seconds
        if expiry := self._expiries.pop(ticket, None):
            expiry.cancel()
        left = self.ttl(ticket.request) - seconds
        if left <= 0:
            self.expire(ticket)
            return
        self._expiries[ticket] = asyncio.get_running_loop().call_later(left, self.expire, ticket)

    def refusal(self, client: Client) -> EdgedError | None:
        """Return why nothing of this client's is let in now; None: it is."""
        try:
            self._check_open()
            self._check_limits(client)
        except EdgedError as error:
            return error
        return None

    def admit_soon(self, ticket: Ticket) -> asyncio.Task[None]:
        """Begin to admit a ticket."""
        task = asyncio.create_task(self._admit(ticket), name=f"admit {ticket.id}")
        self._preparing[ticket] = task
        return task

    async def _admit(self, ticket: Ticket) -> None:
        """Have the prompt prepared if the engine serves now, and let the ticket wait for its turn."""
        fault = None
        if self.engine.is_ready:
            # A session's earlier turns are known only when its turn comes; its question must fit anyway.
            fault = await self._fault_of(ticket, self._prepare(ticket, list(ticket.request.turns())))
        del self._preparing[ticket]
        try:
            self._check_open()
        except EdgedError as error:
            fault = fault or error
        if fault is not None:
            ticket.fail(fault)
        else:
            self._enqueue(ticket)

    async def _fault_of(self, ticket: Ticket, preparation: Coroutine[Any, Any, None]) -> EdgedError | None:
        """Await a preparation and return what is wrong with the request."""
        try:
            await preparation
        except EdgedError as error:
            return error
        except Exception:
            _log.exception("a request could not be prepared", request_id=ticket.id)
            return EdgedError(ErrorCode.INTERNAL, "a fault in edged; its log says more")
        return None

    def _check_open(self) -> None:
        if self.stopping:
            raise EdgedError(ErrorCode.SHUTTING_DOWN, STOPPING)
        if self.engine.state == "failed":
            raise self._no_model()

    def _no_model(self) -> EdgedError:
        reason = self.engine.supervisor.reason or "the model can't be loaded"
        return EdgedError(ErrorCode.MODEL_UNAVAILABLE, reason)

    def _check_limits(self, client: Client) -> None:
        limits = self.settings.limits
        active = list(self.registry.active())
        own = sum(ticket.client.identity == client.identity for ticket in active)
        waiting = len(active) - self.running
        if own >= limits.per_client:
            own_running = sum(ticket.client.identity == client.identity for ticket in self._running)
            raise EdgedError(
                ErrorCode.BUSY,
                f"{own} of your requests are in hand; {limits.per_client} are allowed (limits.per_client)",
                retry_after_s=self.speed.wait_seconds(1, own_running),
            )
        if waiting >= limits.queue:
            raise EdgedError(
                ErrorCode.BUSY,
                f"{waiting} requests are waiting; {limits.queue} are allowed (limits.queue)",
                retry_after_s=self.speed.wait_seconds(1, self.running),
            )

    async def _prepare(self, ticket: Ticket, messages: list[Message]) -> None:
        """Have the prompt tokenised and make sure that it fits.

        Raises:
            EdgedError: `prompt_too_long`, or the engine's refusal.
        """
        request = ticket.request
        if request.raw:
            tokens = await self.engine.prepare(None, request.prompt)
        else:
            tokens = await self.engine.prepare([m.model_dump(exclude_none=True) for m in messages])
        if (beyond := max(request.logit_bias, default=0)) >= self.engine.n_tokens:
            raise invalid(
                f"logit_bias names token {beyond}; the model has {self.engine.n_tokens}", param="logit_bias"
            )
        ticket.prompt = tokens
        ticket.max_tokens = answer_tokens(request, len(tokens), self.engine.context, self.settings.limits)

    def _enqueue(self, ticket: Ticket) -> None:
        self.counters.accepted += 1
        ticket.admitted = True
        self.engine.wake()
        self.queue.put(ticket)
        ahead = len(self.queue) - 1
        self._dispatch()
        ticket.accept(queue_position=ahead if ticket in self.queue else 0)
        _log.info(
            "accepted",
            request_id=ticket.id,
            client=ticket.client.name,
            way=ticket.client.way,
            prompt_tokens=len(ticket.prompt) if ticket.prompt else None,
            waiting=len(self.queue),
            running=self.running,
        )

    def expire(self, ticket: Ticket) -> None:
        """End a ticket whose time is over."""
        ticket.fail(
            EdgedError(
                ErrorCode.EXPIRED,
                f"not begun within {ticket.waited:.1f} s, its ttl: {len(self.queue)} requests are waiting, "
                f"{self.running} running; ask again later, or with a longer ttl_s",
                retry_after_s=self.speed.wait_seconds(len(self.queue), self.running),
            )
        )

    # --- order ---

    def _engine_changed(self) -> None:
        """Start what waited for the engine, or refuse it where there will be none."""
        self._tell_engine()
        if self.engine.state == "failed":
            for ticket in list(self.queue):
                ticket.fail(self._no_model())
        elif self.engine.plan is not None and self._model_key != self.engine.plan.key:
            self._model_key = self.engine.plan.key
            for ticket in self.queue:
                ticket.prompt = None  # another model has other tokens
        self._dispatch()

    def _tell_engine(self) -> None:
        """Emit what became of the engine, once each."""
        supervisor = self.engine.supervisor
        now = self.engine.state, supervisor.reason
        before, self._engine_was = self._engine_was, now
        match self.engine.state:
            case "restarting":
                self.events.emit("engine_crashed", reason=supervisor.reason)
            case "failed" if before != now:
                self.events.emit("model_unavailable", reason=supervisor.reason)
            case "ready" if before != now:
                self.events.emit("model_loaded", model=self.engine.plan.name if self.engine.plan else None)

    def _dispatch(self) -> None:
        """Start as many requests as the engine has room for."""
        if self.stopping or not self.engine.is_ready or self.engine.plan is None:
            return
        while self.running < self.engine.plan.load.sequences:
            ticket = self.queue.take(self._may_run, _cost)
            if ticket is None:
                return
            self._running[ticket] = time.monotonic()
            if key := _session_key(ticket):
                self._sessions_of[ticket] = self.sessions.begin(key)
            if ticket.prompt is not None and key is None:
                self._generate(ticket)
            else:
                self._preparing[ticket] = asyncio.create_task(self._start(ticket), name=f"start {ticket.id}")

    def _may_run(self, ticket: Ticket) -> bool:
        key = _session_key(ticket)
        return key is None or not self.sessions.is_running(key)

    async def _start(self, ticket: Ticket) -> None:
        """Prepare a prompt that could not be prepared before, and generate."""
        session = self._sessions_of.get(ticket)
        if session is None:
            preparation = self._prepare(ticket, list(ticket.request.turns()))
        else:
            preparation = self._prepare_session(ticket, session)
        fault = await self._fault_of(ticket, preparation)
        del self._preparing[ticket]
        if fault is not None:
            ticket.fail(fault)
        else:
            self._generate(ticket)

    async def _prepare_session(self, ticket: Ticket, session: Session) -> None:
        """Prepare a turn of a conversation; its oldest turns leave when the context is full."""
        limits = self.settings.limits
        while True:
            messages = conversation(session, ticket.request, ticket.session_turns_dropped)
            left = session.turns[ticket.session_turns_dropped :]
            try:
                await self._prepare(ticket, messages)
            except EdgedError as error:
                if error.code is not ErrorCode.PROMPT_TOO_LONG or not left:
                    raise
            if not left:
                return
            assert ticket.prompt is not None
            # Old turns are worth more than a long answer that nobody asked for.
            default = min(limits.max_tokens_default, self.engine.context // 4)
            excess = len(ticket.prompt) + (ticket.request.max_tokens or default) - self.engine.context
            if excess <= 0:
                return
            # Bytes tell about how many turns make up for the excess; the next round counts tokens again.
            text_bytes = sum(len(message.content.encode()) for message in messages)
            excess_bytes = excess * text_bytes / len(ticket.prompt)
            for turn in left:
                ticket.session_turns_dropped += 1
                excess_bytes -= turn.size
                if excess_bytes <= 0:
                    break

    def _generate(self, ticket: Ticket) -> None:
        self._expiries.pop(ticket).cancel()
        assert ticket.prompt is not None
        generation = Generation(
            prompt=ticket.prompt,
            sampling=_sampling(ticket.request),
            max_tokens=ticket.max_tokens,
            stop=list(ticket.request.stop),
            top_logprobs=ticket.request.top_logprobs if ticket.request.logprobs else None,
            watcher=ticket,
        )
        ticket.start(generation)
        self.engine.generate(generation)

    # --- the end ---

    def _cancel(self, ticket: Ticket) -> None:
        if ticket.generation is not None:
            self.engine.cancel(ticket.generation)
            return
        ticket.finish("cancelled")

    def _finished(self, ticket: Ticket) -> None:
        """Make room, keep what is worth keeping, and start the next."""
        started = self._running.get(ticket)
        self._leave(ticket)
        self.registry.keep(ticket)
        if ticket.admitted:
            self._count(ticket, started)
        self._dispatch()

    def suspend(self, ticket: Ticket) -> None:
        """Leave a request that is written down to the next daemon."""
        if ticket.terminal is None and not ticket.suspended:
            ticket.suspend()
            self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        if expiry := self._expiries.pop(ticket, None):
            expiry.cancel()
        if preparing := self._preparing.pop(ticket, None):
            preparing.cancel()
        self._running.pop(ticket, None)
        if ticket.admitted:
            computed = len(ticket.prompt or ()) + ticket.completion_tokens if ticket.generation else 0
            self.queue.leave(ticket, computed)
        if ticket.generation is not None:
            self.engine.cancel(ticket.generation)  # failed from outside: it may still be running
        self._keep_turn(ticket)

    def _keep_turn(self, ticket: Ticket) -> None:
        key = _session_key(ticket)
        if key is None or self._sessions_of.pop(ticket, None) is None:
            return
        done = ticket.terminal
        answered = isinstance(done, Done) and done.finish_reason != "cancelled"
        self.sessions.end(
            key, ticket.request, ticket.text if answered else None, dropped=ticket.session_turns_dropped
        )

    def _count(self, ticket: Ticket, started: float | None) -> None:
        end = ticket.terminal
        fields: dict[str, Any] = {"request_id": ticket.id, "client": ticket.client.name}
        if not isinstance(end, Done):
            assert end is not None
            self.counters.failed += 1
            _log.warning("failed", **fields, code=end.code, reason=end.message)
            return
        if end.finish_reason == "cancelled":
            self.counters.cancelled += 1
        else:
            self.counters.done += 1
            if started is not None:
                self.speed.learn(end, time.monotonic() - started)
        _log.info(
            "ended",
            **fields,
            finish_reason=end.finish_reason,
            completion_tokens=end.usage.completion_tokens,
            tokens_per_second=end.timings.tokens_per_second,
        )


def _session_key(ticket: Ticket) -> SessionKey | None:
    name = ticket.request.session
    return SessionKey(*ticket.client.identity, name) if name is not None else None


def _cost(ticket: Ticket) -> float:
    return len(ticket.prompt or ()) + ticket.max_tokens


def _sampling(request: Request) -> dict[str, Any]:
    """Return the fields of the engine's SamplingParams; drawn here, a seed outlives the engine."""
    return {
        "temperature": request.temperature,
        "top_k": request.top_k,
        "top_p": request.top_p,
        "min_p": request.min_p,
        "repeat_penalty": request.repeat_penalty,
        "presence_penalty": request.presence_penalty,
        "frequency_penalty": request.frequency_penalty,
        "logit_bias": sorted(request.logit_bias.items()),
        "seed": request.seed if request.seed is not None else secrets.randbelow(SEED_MAX),
    }

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
from edged.core.durable import Ask, Durable, Envelope, Unsent
from edged.core.events import Events
from edged.core.journal import Loss
from edged.core.queue import FairQueue
from edged.core.registry import Registry
from edged.core.sessions import Session, SessionKey, Sessions, conversation
from edged.core.speed import Speed
from edged.core.status import ModelInfo, Phase
from edged.core.ticket import Ticket
from edged.engine.client import Engine
from edged.engine.generation import Generation
from edged.errors import EdgedError, ErrorCode, invalid
from edged.protocol import SEED_MAX, Client, Done, Failed, Message, Request
from edged.settings import Settings

_log = structlog.get_logger(__name__)


UNREADABLE = Request(prompt="")  # stands for a request of another version
STOPPING = "edged is stopping; ask again when it is back"


@dataclass(frozen=True, slots=True)
class Admitted:
    """What became of a request that was let in.

    Attributes:
        ticket: where its frames come from.
        repeated: whether it is a repeat; the ticket is the earlier request's then.
    """

    ticket: Ticket
    repeated: bool = False


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
        unsent: answers and events of earlier daemons that the broker has not got.
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
        self.clock = clock or Clock()
        self.status_parts: dict[str, Callable[[], Any]] = {}
        self.started = time.monotonic()
        self.stopping = False
        self.unsent: list[Unsent] = []
        self._asks: list[Ask] = []
        self._losses: list[Loss] = []
        self._resumed: dict[Ticket, Ask] = {}
        self._model_key = ""
        self._engine_was: tuple[str, str | None] = ("starting", None)
        self._registry = Registry(settings.journal.keep_results_seconds)
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
        if earlier := self._registry.duplicate(client, request):
            return Admitted(earlier, repeated=True)
        self._check_limits(client)
        ticket = self._ticket(request, client)
        try:
            await asyncio.wait([self._admit_soon(ticket)])
        except BaseException:
            ticket.cancel()
            self._registry.remove(ticket)
            raise
        if isinstance(ticket.terminal, Failed) and not ticket.admitted:
            self._registry.remove(ticket)
            raise ticket.terminal.error()
        return Admitted(ticket)

    async def take(
        self,
        request: Request,
        client: Client,
        envelope: Envelope,
        *,
        made_id: str,
        redelivered: bool = False,
    ) -> Admitted:
        """Let a request in that is answered also if the daemon dies.

        Returns once it is written down; computing may have begun by then. What is refused for reasons of the
        moment has its terminal frame already, and only that is to be written down.

        Args:
            request: what is asked.
            client: who asks.
            envelope: where the frontend sends the frames.
            made_id: its id, if it has none of its own.
            redelivered: the transport may have delivered it before.

        Raises:
            EdgedError: it can't be let in, and would not be if it came again; or `journal_full`,
                `shutting_down`.
        """
        assert self.durable is not None
        if self.stopping:
            raise EdgedError(ErrorCode.SHUTTING_DOWN, STOPPING)
        check_size(request, self.settings.limits)
        if earlier := self._registry.duplicate(client, request, redelivered=redelivered):
            return Admitted(earlier, repeated=True)
        try:
            self._check_open()
            self._check_limits(client)
        except EdgedError as error:
            ticket = self._ticket(request, client, id=request.id or made_id)
            ticket.fail(error)
            return Admitted(ticket)
        ticket = self._ticket(request, client, id=request.id or made_id)
        ticket.durable = True
        self._admit_soon(ticket)
        try:
            await self.durable.accept(ticket, envelope)
        except BaseException:
            self._suspend(ticket)
            self._registry.remove(ticket)
            raise
        return Admitted(ticket)

    async def open(self) -> None:
        """Open the journal, and remember what was answered before.

        What an earlier daemon left for a frontend stays until the frontend asks for it.
        """
        assert self.durable is not None
        restored, recovered = await self.durable.open()
        self._registry.salt = self.durable.salt
        for ticket, ended_before in restored.answered:
            self._registry.add(ticket)
            self._registry.keep(ticket, ended_before)
        self._asks, self.unsent = restored.asks, restored.unsent
        self._losses = recovered.losses

    def resume(self) -> list[tuple[Ticket, Envelope]]:
        """Begin what an earlier daemon accepted and did not answer, as a new attempt; oldest first.

        What could not be read of its journal is told now, when the frontend listens.
        """
        assert self.durable is not None
        losses, self._losses = self._losses, []
        for loss in losses:
            self.events.emit(
                "journal_loss",
                limited=False,
                first_serial=loss.first,
                last_serial=loss.last,
                reason=loss.reason,
            )
        asks, self._asks = self._asks, []
        resumed = []
        for ask in asks:
            ticket = self._ticket(
                ask.request or UNREADABLE,
                ask.client,
                id=ask.id,
                body_hash=ask.body_hash,
                attempt=ask.attempt,
                waited=self.durable.waited(ask),
            )
            ticket.serial, ticket.durable = ask.serial, True
            self._resumed[ticket] = ask
            if ask.request is None:
                ticket.fail(EdgedError(ErrorCode.INTERNAL, "edged was changed and can't read it; ask again"))
            elif ticket.waited >= self._ttl(ask.request):
                self._expire(ticket)
            else:
                self._admit_soon(ticket)
            resumed.append((ticket, ask.envelope))
        return resumed

    def recheck_ttl(self) -> None:
        """Look again at what waits from before the boot: the clock has been synchronised since."""
        assert self.durable is not None
        for ticket, ask in list(self._resumed.items()):
            if ticket in self.queue and self.durable.waited(ask) >= self._ttl(ticket.request):
                self._expire(ticket)

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
        return self._registry.find(client, request_id)

    def in_hand(self) -> list[Ticket]:
        """Return all clients' requests that have not ended."""
        return list(self._registry.active())

    def look_for_model(self) -> None:
        """Try at once to load a model that could not be loaded: its file may have come."""
        if self.engine.state == "failed":
            self.engine.supervisor.retry_now()

    def reload(self, settings: Settings) -> None:
        """Take over what can change while requests run."""
        self.settings = settings
        self.sessions.bounds = settings.sessions
        self._registry.keep_seconds = settings.journal.keep_results_seconds
        self.engine.supervisor.stall_seconds = settings.watch.liveness.engine_seconds

    async def stop(self, budget_seconds: float) -> None:
        """Let nothing in any more and give what runs so many seconds to end.

        What is written down and has not ended by then is left for the next daemon.
        """
        self.stopping = True
        error = EdgedError(ErrorCode.SHUTTING_DOWN, STOPPING)
        for ticket in [*self._registry.active()]:
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
            self._suspend(ticket)
        else:
            ticket.fail(error)

    # --- admission ---

    def _ticket(
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
        loop = asyncio.get_running_loop()
        self._expiries[ticket] = loop.call_later(self._ttl(request) - waited, self._expire, ticket)
        return ticket

    def _ttl(self, request: Request) -> float:
        return request.ttl_s or self.settings.limits.ttl_seconds

    def _admit_soon(self, ticket: Ticket) -> asyncio.Task[None]:
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
        active = list(self._registry.active())
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

    def _expire(self, ticket: Ticket) -> None:
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
        self._registry.keep(ticket)
        if ticket.admitted:
            self._count(ticket, started)
        self._dispatch()

    def _suspend(self, ticket: Ticket) -> None:
        """Leave a request that is written down to the next daemon."""
        ticket.suspend()
        self._leave(ticket)

    def _leave(self, ticket: Ticket) -> None:
        if expiry := self._expiries.pop(ticket, None):
            expiry.cancel()
        if preparing := self._preparing.pop(ticket, None):
            preparing.cancel()
        self._resumed.pop(ticket, None)
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
    return SessionKey(ticket.client.name, name) if name is not None else None


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

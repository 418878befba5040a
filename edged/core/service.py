"""The core: admission, order, sessions and the way of each request to the engine and back."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import uuid
from dataclasses import dataclass
from typing import Any

import structlog

from edged.core import status
from edged.core.admission import answer_tokens, check_size
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
        started: when the core was made, by the monotonic clock.
        stopping: nothing is let in any more.
    """

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self.settings = settings
        self.engine = engine
        self.counters = Counters()
        self.speed = Speed()
        self.sessions = Sessions(settings.sessions)
        self.queue = FairQueue()
        self.started = time.monotonic()
        self.stopping = False
        self._model_key = ""
        self._registry = Registry(settings.journal.keep_results_seconds)
        self._running: dict[Ticket, float] = {}  # to the time of their start
        self._starts: dict[Ticket, asyncio.Task[None]] = {}
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
        """Let a request in.

        Returns once it is accepted: while the engine serves, its prompt is known to fit by then.

        Raises:
            EdgedError: it is refused; with the figures and the remedy.
        """
        self._check_open()
        check_size(request, self.settings.limits)
        if earlier := self._registry.duplicate(client, request):
            return Admitted(earlier, repeated=True)
        self._check_limits(client)
        ticket = Ticket(
            request,
            client,
            id=request.id or uuid.uuid4().hex,
            body_hash=self._registry.body_hash(request),
            on_cancel=self._cancel,
        )
        self._registry.add(ticket)
        ttl = request.ttl_s or self.settings.limits.ttl_seconds
        expiry = asyncio.get_running_loop().call_later(ttl, self._expire, ticket)
        try:
            if self.engine.is_ready:
                # A session's earlier turns are known only when its turn comes; its question must fit anyway.
                async with asyncio.timeout(ttl):
                    await self._prepare(ticket, list(request.turns()))
            self._check_open()
        except TimeoutError:
            self._expire(ticket)
        except EdgedError as error:
            ticket.fail(error)
        except BaseException:
            ticket.finish("cancelled")
            self._registry.remove(ticket)
            expiry.cancel()
            raise
        if ticket.terminal is None:
            self._expiries[ticket] = expiry
            self._enqueue(ticket)
            return Admitted(ticket)
        expiry.cancel()
        if isinstance(ticket.terminal, Failed):
            self._registry.remove(ticket)
            raise ticket.terminal.error()
        self._registry.keep(ticket)  # cancelled meanwhile
        return Admitted(ticket)

    def find(self, client: Client, request_id: str) -> Ticket | None:
        """Return a client's request: in hand, or finished and still kept."""
        return self._registry.find(client, request_id)

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
        """Let nothing in any more and give what runs so many seconds to end."""
        self.stopping = True
        error = EdgedError(ErrorCode.SHUTTING_DOWN, STOPPING)
        for ticket in list(self.queue):
            ticket.fail(error)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(budget_seconds):
                for ticket in list(self._running):
                    await ticket.wait()
        for ticket in list(self._running):
            ticket.fail(error)

    # --- admission ---

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
        own = sum(ticket.client.name == client.name for ticket in active)
        waiting = len(active) - self.running
        if own >= limits.per_client:
            own_running = sum(ticket.client.name == client.name for ticket in self._running)
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
        ticket.on_finish = self._finished
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
        if self.engine.state == "failed":
            for ticket in list(self.queue):
                ticket.fail(self._no_model())
        elif self.engine.plan is not None and self._model_key != self.engine.plan.key:
            self._model_key = self.engine.plan.key
            for ticket in self.queue:
                ticket.prompt = None  # another model has other tokens
        self._dispatch()

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
                self._starts[ticket] = asyncio.create_task(self._start(ticket), name=f"start {ticket.id}")

    def _may_run(self, ticket: Ticket) -> bool:
        key = _session_key(ticket)
        return key is None or not self.sessions.is_running(key)

    async def _start(self, ticket: Ticket) -> None:
        """Prepare a prompt that could not be prepared before, and generate."""
        try:
            session = self._sessions_of.get(ticket)
            if session is None:
                await self._prepare(ticket, list(ticket.request.turns()))
            else:
                await self._prepare_session(ticket, session)
        except EdgedError as error:
            fault: EdgedError | None = error
        except Exception:
            _log.exception("a request could not be started", request_id=ticket.id)
            fault = EdgedError(ErrorCode.INTERNAL, "a fault in edged; its log says more")
        else:
            fault = None
        del self._starts[ticket]
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
        if expiry := self._expiries.pop(ticket, None):
            expiry.cancel()
        if start := self._starts.pop(ticket, None):
            start.cancel()
        started = self._running.pop(ticket, None)
        computed = len(ticket.prompt or ()) + ticket.completion_tokens if ticket.generation else 0
        self.queue.leave(ticket, computed)
        if ticket.generation is not None:
            self.engine.cancel(ticket.generation)  # failed from outside: it may still be running
        self._keep_turn(ticket)
        self._registry.keep(ticket)
        self._count(ticket, started)
        self._dispatch()

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

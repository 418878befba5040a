"""From a request to what the engine computes: a prompt of tokens that fits the context, and sampling."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import structlog

from edged.core.sessions import Session, conversation
from edged.core.ticket import Ticket
from edged.engine.client import Engine
from edged.engine.generation import Generation
from edged.errors import EdgedError, ErrorCode, invalid
from edged.protocol import SEED_MAX, Message, Request
from edged.settings.schema import LimitsTable

_log = structlog.get_logger(__name__)


class Preparer:
    """Has prompts tokenised by the engine, and makes sure that they fit.

    Args:
        engine: which renders and tokenises.
        limits: as they are now.
    """

    def __init__(self, engine: Engine, limits: Callable[[], LimitsTable]) -> None:
        self._engine = engine
        self._limits = limits

    async def prepare(self, ticket: Ticket, session: Session | None = None) -> None:
        """Give a ticket its prompt and the most tokens of its answer.

        Args:
            ticket: the request's.
            session: the conversation that it goes on with; its oldest turns leave when the context is full.

        Raises:
            EdgedError: `prompt_too_long`, the engine's refusal, or `internal`.
        """
        try:
            if session is None:
                await self._tokenise(ticket, list(ticket.request.turns()))
            else:
                await self._fit(ticket, session)
        except EdgedError:
            raise
        except Exception:
            _log.exception("a request could not be prepared", request_id=ticket.id)
            raise EdgedError(ErrorCode.INTERNAL, "a fault in edged; its log says more") from None

    async def _tokenise(self, ticket: Ticket, messages: list[Message]) -> None:
        request, engine = ticket.request, self._engine
        if request.raw:
            tokens = await engine.prepare(None, request.prompt)
        else:
            tokens = await engine.prepare([m.model_dump(exclude_none=True) for m in messages])
        if (beyond := max(request.logit_bias, default=0)) >= engine.n_tokens:
            raise invalid(
                f"logit_bias names token {beyond}; the model has {engine.n_tokens}", param="logit_bias"
            )
        ticket.prompt = tokens
        ticket.max_tokens = _answer_tokens(request, len(tokens), engine.context, self._limits())

    async def _fit(self, ticket: Ticket, session: Session) -> None:
        """Tokenise a turn of a conversation, with as many of the newest turns before it as fit."""
        limits = self._limits()
        while True:
            messages = conversation(session, ticket.request, ticket.session_turns_dropped)
            left = session.turns[ticket.session_turns_dropped :]
            try:
                await self._tokenise(ticket, messages)
            except EdgedError as error:
                if error.code is not ErrorCode.PROMPT_TOO_LONG or not left:
                    raise
            if not left:
                return
            assert ticket.prompt is not None
            # Old turns are worth more than a long answer that nobody asked for.
            default = min(limits.max_tokens_default, self._engine.context // 4)
            excess = len(ticket.prompt) + (ticket.request.max_tokens or default) - self._engine.context
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


def generation_of(ticket: Ticket) -> Generation:
    """Return what the engine computes for a ticket that is prepared."""
    assert ticket.prompt is not None
    request = ticket.request
    return Generation(
        prompt=ticket.prompt,
        sampling=_sampling(request),
        max_tokens=ticket.max_tokens,
        stop=list(request.stop),
        top_logprobs=request.top_logprobs if request.logprobs else None,
        watcher=ticket,
    )


def _answer_tokens(request: Request, prompt_tokens: int, context: int, limits: LimitsTable) -> int:
    """Return the most tokens of the answer: as asked for, or the default as far as it fits.

    Raises:
        EdgedError: `prompt_too_long`, with the figures.
    """
    wanted = request.max_tokens or 1
    if prompt_tokens + wanted > context:
        remedy = "shorten the prompt"
        if request.max_tokens is not None and prompt_tokens < context:
            remedy += f" or lower max_tokens to {context - prompt_tokens}"
        asked = f" and max_tokens is {request.max_tokens}" if request.max_tokens is not None else ""
        raise EdgedError(
            ErrorCode.PROMPT_TOO_LONG,
            f"the prompt has {prompt_tokens} tokens{asked}; the context holds {context} tokens, "
            f"prompt and answer together: {remedy}",
        )
    return request.max_tokens or min(limits.max_tokens_default, limits.max_tokens, context - prompt_tokens)


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

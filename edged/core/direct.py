"""What is answered in one piece, without a ticket: embeddings, tokens and rendered templates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from edged.core.admission import Admission, stopping
from edged.core.outcomes import Outcomes
from edged.engine.client import Engine
from edged.engine.embeddings import Embedding
from edged.errors import EdgedError, ErrorCode, invalid
from edged.protocol import Client, Message
from edged.settings.schema import LimitsTable

T = TypeVar("T")

MAX_TEXTS = 1024
"""Texts of one request for embeddings."""


class Direct:
    """Answers questions at once; who asks waits, and who goes away cancels.

    Each counts as a request in hand of its client while it lasts.

    Args:
        engine: which answers.
        limits: as they are now.
        admission: says who may ask.
        outcomes: count what became of embeddings.
    """

    def __init__(
        self, engine: Engine, limits: Callable[[], LimitsTable], *, admission: Admission, outcomes: Outcomes
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._admission = admission
        self._outcomes = outcomes
        self._works: set[asyncio.Task[Any]] = set()
        self._ending = stopping()  # what those are told that are ended

    @property
    def in_hand(self) -> int:
        """Return how many wait for an answer."""
        return len(self._works)

    async def embed(self, texts: Sequence[str], client: Client) -> list[Embedding]:
        """Return the embedding of each text.

        Raises:
            EdgedError: it is refused, or fails; with the figures and the remedy.
        """
        if not 1 <= len(texts) <= MAX_TEXTS:
            raise invalid(f"input has {len(texts)} texts; 1 to {MAX_TEXTS} are served at once", param="input")
        named = {f"input.{number}": text for number, text in enumerate(texts)}
        for name, text in named.items():
            if not text:
                raise invalid(f"{name} is empty: leave it out", param=name)
        self._check_size("input", named)
        with self._admission.visit(client), self._outcomes.embedding():
            return await self._answer(self._embed(texts))

    async def tokenize(
        self, text: str, client: Client, *, add_special: bool, parse_special: bool, with_pieces: bool
    ) -> tuple[list[int], list[bytes] | None]:
        """Return the tokens of a text and, if wanted, the bytes that each stands for; see `Texts.tokenize`.

        Raises:
            EdgedError: it is refused, or fails; with the figures and the remedy.
        """
        self._check_size("content", {"content": text})
        question = partial(
            self._engine.texts.tokenize,
            text,
            add_special=add_special,
            parse_special=parse_special,
            with_pieces=with_pieces,
        )
        return await self._ask(client, question)

    async def detokenize(self, tokens: Sequence[int], client: Client) -> str:
        """Return the text of tokens.

        Raises:
            EdgedError: it is refused, or fails; with the figures and the remedy.
        """
        if len(tokens) > (most := self._limits().max_prompt_bytes):
            raise EdgedError(
                ErrorCode.TOO_LARGE,
                f"there are {len(tokens)} tokens; {most} are allowed (limits.max_prompt_bytes)",
                param="tokens",
            )
        return await self._ask(client, partial(self._engine.texts.detokenize, tokens))

    async def render(self, messages: Sequence[Message], client: Client) -> str:
        """Return a conversation put through the model's chat template.

        Raises:
            EdgedError: it is refused, or fails; with the figures and the remedy.
        """
        turns = [message.model_dump(exclude_none=True) for message in messages]
        texts = {f"{n}.{field}": text for n, turn in enumerate(turns) for field, text in turn.items()}
        self._check_size("messages", texts)
        return await self._ask(client, partial(self._engine.texts.render, turns))

    async def wait(self) -> None:
        """Return when nobody waits for an answer."""
        if self._works:
            await asyncio.wait(self._works)

    def stop(self, error: EdgedError) -> None:
        """Refuse those that still wait."""
        self._ending = error
        for work in self._works:
            work.cancel()

    def _check_size(self, what: str, texts: Mapping[str, str]) -> None:
        size, most = 0, self._limits().max_prompt_bytes
        for name, text in texts.items():
            try:
                size += len(text.encode())
            except UnicodeEncodeError as error:
                raise invalid(
                    f"{name}: character {error.start} is half of a surrogate pair, so the text is no UTF-8",
                    param=name,
                ) from None
        if size > most:
            raise EdgedError(
                ErrorCode.TOO_LARGE,
                f"{what} has {size} bytes; {most} are allowed (limits.max_prompt_bytes)",
                param=what,
            )

    async def _ask(self, client: Client, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        with self._admission.visit(client):
            return await self._answer(self._in_time(question))

    async def _answer(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what comes of some work; it ends with who waits for it, and at a stop."""
        task = asyncio.create_task(work)
        self._works.add(task)
        try:
            await asyncio.wait([task])
            if task.cancelled():
                raise self._ending.with_traceback(None)
            return task.result()
        finally:
            task.cancel()
            self._works.discard(task)

    async def _embed(self, texts: Sequence[str]) -> list[Embedding]:
        """Have texts embedded, if that begins in time."""
        ttl = self._limits().ttl_seconds
        try:
            async with asyncio.timeout(ttl) as waiting:
                return await self._engine.embed(texts, lambda: waiting.reschedule(None))
        except TimeoutError:
            raise _expired(ttl) from None

    async def _in_time(self, question: Callable[[], Coroutine[Any, Any, T]]) -> T:
        ttl = self._limits().ttl_seconds
        try:
            async with asyncio.timeout(ttl):
                return await question()
        except TimeoutError:
            raise _expired(ttl) from None


def _expired(seconds: float) -> EdgedError:
    return EdgedError(
        ErrorCode.EXPIRED,
        f"not begun within {seconds:g} s (limits.ttl_seconds): the engine is not ready yet; ask again later",
    )

"""The daemon's side of embeddings: what the engine owes, and has given, outlives its process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edged.engine.messages import Cancel, Embed, Embedded
from edged.errors import EdgedError


class Embedding(NamedTuple):
    """A text as a vector of length 1.

    Attributes:
        vector: numbers of single precision, little-endian, in base64.
        tokens: how many the text has.
    """

    vector: str
    tokens: int


@dataclass(slots=True, eq=False)
class _Job:
    number: int
    texts: Sequence[str]
    on_begin: Callable[[], None]
    answer: asyncio.Future[list[Embedding]] = field(default_factory=asyncio.Future)
    done: list[Embedding] = field(default_factory=list)
    deaths: int = 0
    at_engine: bool = False


class Embeddings:
    """Texts that wait for their embeddings.

    Args:
        send: sends a message to the engine.
        most_deaths: of the engine, while it had a request, after which that is taken for the cause.
    """

    def __init__(self, send: Callable[[Embed | Cancel], None], *, most_deaths: int) -> None:
        self._send = send
        self._most_deaths = most_deaths
        self._jobs: dict[int, _Job] = {}

    @property
    def at_engine(self) -> bool:
        """Say whether the engine has any."""
        return any(job.at_engine for job in self._jobs.values())

    async def embed(
        self, number: int, texts: Sequence[str], on_begin: Callable[[], None], *, engine_serves: bool
    ) -> list[Embedding]:
        """Return the embedding of each text, waiting for the engine; who is cancelled cancels it there.

        Args:
            number: the request's.
            texts: one or more.
            on_begin: called when the engine has them.
            engine_serves: whether it can have them now.

        Raises:
            EdgedError: the engine refuses, or `engine_crashed` or `model_unavailable`.
        """
        job = self._jobs[number] = _Job(number, texts, on_begin)
        if engine_serves:
            self._begin(job)
        try:
            return await job.answer
        finally:
            if self._jobs.pop(number, None) and job.at_engine:
                self._send(Cancel(number))

    def take(self, embedded: Embedded) -> bool:
        """Take the next embedding of a request; say whether it was its last."""
        job = self._jobs.get(embedded.request)
        if job is None:
            return False
        job.done.append(Embedding(embedded.vector, embedded.tokens))
        if len(job.done) < len(job.texts):
            return False
        self._end(job, job.done)
        return True

    def refuse(self, number: int, error: EdgedError) -> bool:
        """Take the engine's refusal of a request; say whether the request is one for embeddings."""
        job = self._jobs.get(number)
        if job is not None:
            self._end(job, error)
        return job is not None

    def begin(self) -> None:
        """Send what waits to an engine that has nothing."""
        for job in list(self._jobs.values()):
            self._begin(job)

    def on_death(self, error: EdgedError, *, blameless: bool) -> None:
        """Keep what was there for the next engine, but fail with this error what engines have died of."""
        for job in list(self._jobs.values()):
            job.deaths += job.at_engine and not blameless
            job.at_engine = False
            if job.deaths >= self._most_deaths:
                self._end(job, error)

    def fail(self, error: EdgedError) -> None:
        """End all with an error."""
        for job in list(self._jobs.values()):
            self._end(job, error)

    def _begin(self, job: _Job) -> None:
        first = len(job.done)
        self._send(Embed(job.number, first, list(job.texts[first:])))
        job.at_engine = True
        job.on_begin()

    def _end(self, job: _Job, outcome: list[Embedding] | EdgedError) -> None:
        del self._jobs[job.number]
        if job.answer.done():
            return
        if isinstance(outcome, EdgedError):
            job.answer.set_exception(outcome)
        else:
            job.answer.set_result(outcome)

"""Texts that wait to be embedded, in turn between requests; their vectors in the making."""

from __future__ import annotations

import math
from array import array
from collections import deque
from dataclasses import dataclass

from edged.engine.child.llama.embedding import Vector
from edged.engine.messages import Pooling


@dataclass(slots=True, eq=False)
class Text:
    """A text.

    Attributes:
        number: its place in the request.
        tokens: all of them.
        read: how many of them are computed.
        vector: what was pooled of those.
    """

    number: int
    tokens: list[int]
    read: int = 0
    vector: Vector | None = None

    @property
    def is_read(self) -> bool:
        """Say whether the vector is that of the whole text."""
        return self.read == len(self.tokens)

    def add(self, vector: Vector, count: int, pooling: Pooling) -> None:
        """Pool the vector of the next `count` tokens with that of those before."""
        if self.vector is None or pooling == "last":
            self.vector = vector
        elif pooling == "mean":
            share = count / (self.read + count)
            mean = (old + share * (new - old) for old, new in zip(self.vector, vector, strict=True))
            self.vector = array("f", mean)
        self.read += count

    def begin_again(self) -> None:
        """Forget what was computed."""
        self.read, self.vector = 0, None

    def normalised(self) -> Vector | None:
        """Return the vector with length 1; None if its numbers are out of range."""
        assert self.vector is not None
        norm = math.sqrt(sum(value * value for value in self.vector))
        if not math.isfinite(norm):
            return None
        return array("f", (value / norm for value in self.vector)) if norm else self.vector


@dataclass(slots=True, eq=False)
class Job:
    """A request: its texts that are not embedded yet."""

    request: int
    texts: deque[Text]
    cancelled: bool = False


class Jobs:
    """Requests, of which each has its turn."""

    def __init__(self) -> None:
        self._jobs: dict[int, Job] = {}  # whose turn is next comes first

    def __len__(self) -> int:
        return len(self._jobs)

    def find(self, request: int) -> Job | None:
        """Return a request that has texts left."""
        return self._jobs.get(request)

    def add(self, job: Job) -> None:
        """Let a request wait for its turn."""
        self._jobs[job.request] = job

    def remove(self, request: int) -> None:
        """Forget a request."""
        if job := self._jobs.pop(request, None):
            job.cancelled = True

    def done(self, job: Job) -> None:
        """Take a request's first text off, and let the next request have its turn."""
        del self._jobs[job.request]
        job.texts.popleft()
        if job.texts:
            self._jobs[job.request] = job

    def choose(self, budget: int, most: int) -> list[tuple[Job, Text]]:
        """Return the next texts, one of each request in turn: the first, and others as far as tokens allow.

        Args:
            budget: tokens of all together.
            most: texts.
        """
        chosen: list[tuple[Job, Text]] = []
        turns = deque((job, iter(job.texts)) for job in self._jobs.values() if not job.cancelled)
        while turns and len(chosen) < most:
            job, texts = turns.popleft()
            if (text := next(texts, None)) is None:
                continue
            if chosen and len(text.tokens) > budget:
                break
            budget -= len(text.tokens)
            chosen.append((job, text))
            turns.append((job, texts))
        return chosen

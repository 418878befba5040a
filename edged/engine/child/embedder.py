"""The engine's side of embeddings: the texts of all requests in turn, a pass at a time."""

from __future__ import annotations

import base64
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Self

from edged.engine.child.embedding_jobs import Job, Jobs, Text
from edged.engine.child.llama import LlamaError, Model, Run
from edged.engine.child.llama.embedding import TEXTS_AT_ONCE, EmbeddingContext, Vector, pooling_of
from edged.engine.child.text.prompt import PromptBuilder
from edged.engine.messages import Embed, Embedded, Load, Refused
from edged.errors import EdgedError, ErrorCode, invalid

WARM_UP_TOKENS = 64
_UNMEASURED_TOKENS = 16  # of a pass that others wait for, while no time has been measured
_WEIGHT = 0.2  # of the newest pass in the running mean of a token's time


def open_embedder(
    stack: ExitStack, load: Load, model: Model, prompts: PromptBuilder, *, generates: bool
) -> Embedder:
    """Return what embeds with a model; of one that does nothing else, it is loaded now.

    Args:
        stack: what is loaded is freed with it.
        load: how to compute.
        model: the weights.
        prompts: makes tokens of texts.
        generates: whether the model is used for answers, too.

    Raises:
        LlamaError: the model can do nothing at all, or can't be loaded.
    """
    pooling = pooling_of(model)
    if pooling is None and not generates:
        raise LlamaError(
            "it can't generate text, and its file names no pooling (mean, cls or last) for embeddings: "
            "take a file that llama.cpp's converter has made"
        )

    open_context = pooling and partial(
        EmbeddingContext,
        model,
        pooling=pooling,
        context=load.context,
        is_encoder=not generates,
        threads=load.threads,
        threads_batch=load.threads_batch,
    )
    embedder = Embedder(
        open_context or None,
        partial(prompts.plain, add_special=True),
        step_seconds=load.step_milliseconds / 1000,
        deterministic=load.deterministic,
    )
    stack.enter_context(embedder)
    if not generates:
        embedder.warm_up(model.vocabulary.bos or 0)
    return embedder


class Embedder:
    """Embeds texts; requests take turns, text by text.

    Args:
        open_context: makes the context when it is first needed; None: the model isn't made for embeddings.
        tokenize: makes a text's tokens, with what the model wants around them; raises EdgedError.
        step_seconds: how long a pass may take while others wait, as far as texts can be cut.
        deterministic: each text is computed by itself and in the same pieces, whatever else there is.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        open_context: Callable[[], EmbeddingContext] | None,
        tokenize: Callable[[str], list[int]],
        *,
        step_seconds: float,
        deterministic: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open = open_context
        self._tokenize = tokenize
        self._step_seconds = step_seconds
        self._deterministic = deterministic
        self._clock = clock
        self._context: EmbeddingContext | None = None
        self._threads: tuple[int, int] | None = None  # where others than at the start are wanted
        self._most_seconds = math.inf  # of a pass
        self._token_seconds: float | None = None
        self._jobs = Jobs()
        self._begun: tuple[Job, Text] | None = None  # the text that the cells hold a part of
        self._lock = threading.Lock()
        self._flight: list[Job] = []  # what the pass that runs is for

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._context is not None:
            self._context.close()

    def warm_up(self, token: int) -> None:
        """Load what computes, and run its kernels for one token and for many.

        Raises:
            LlamaError: it can't be loaded.
        """
        assert self._open is not None
        self._context = self._open()
        for length in (1, min(WARM_UP_TOKENS, self._context.pass_tokens)):
            self._context.compute([Run(0, 0, [token] * length, wants_logits=True)])
            self._context.forget()

    @property
    def has_work(self) -> bool:
        """Say whether texts wait."""
        return bool(self._jobs)

    def tune(self, threads: int, threads_batch: int, most_seconds: float) -> None:
        """Compute with so many threads from the next pass on: for passes of one token, and of more.

        A pass takes `most_seconds` at most, as far as texts can be cut.
        """
        self._threads = threads, threads_batch
        self._most_seconds = most_seconds
        if self._context is not None:
            self._context.set_threads(*self._threads)

    def trim(self) -> None:
        """Give back the memory that embeddings take while none are wanted."""
        if self._context is not None and not self._jobs:
            self._context.close()
            self._context = None

    def add(self, message: Embed) -> Refused | None:
        """Take a request in, or return why not."""
        try:
            context = self._ready_context()
            texts = [
                Text(number, self._tokens(text, number, context))
                for number, text in enumerate(message.texts, start=message.first)
            ]
        except EdgedError as error:
            return Refused(message.request, error.code, error.message)
        self._jobs.add(Job(message.request, deque(texts)))
        return None

    def cancel(self, request: int) -> None:
        """Forget a request; one that has ended is left alone."""
        self._jobs.remove(request)

    def interrupt(self, request: int) -> None:
        """End the pass that runs if nobody wants it any more; called from another thread."""
        with self._lock:
            if job := self._jobs.find(request):
                job.cancelled = True
            if self._context and self._flight and all(job.cancelled for job in self._flight):
                self._context.abort()

    def step(self, *, others_wait: bool) -> list[Embedded | Refused]:
        """Compute a pass and return what came of it.

        Args:
            others_wait: sequences are being generated, whose next tokens wait for the end of the pass.

        Raises:
            LlamaError: the computation failed.
        """
        assert self._context is not None
        budget = self._budget(self._context, others_wait=others_wait)
        chosen = self._choose(self._context, budget)
        runs = [self._run(self._context, slot, text, budget) for slot, (_, text) in enumerate(chosen)]
        vectors = self._compute(self._context, [job for job, _ in chosen], runs) if runs else []
        if vectors is None:
            self._forget(self._context)
            return []
        messages: list[Embedded | Refused] = []
        for (job, text), run, vector in zip(chosen, runs, vectors, strict=True):
            text.add(vector, len(run.tokens), self._context.pooling)
            if not text.is_read:
                self._begun = job, text
                return []
            if not job.cancelled:
                messages.append(self._finish(job, text))
        self._forget(self._context)
        return messages

    def _ready_context(self) -> EmbeddingContext:
        if self._open is None:
            raise EdgedError(
                ErrorCode.NOT_ALLOWED,
                "the loaded model makes no embeddings: its file names no pooling (mean, cls or last) for "
                "them; load one that is made for embeddings (edgectl model use NAME)",
            )
        if self._context is None:
            try:
                self._context = self._open()
                if self._threads is not None:
                    self._context.set_threads(*self._threads)
            except LlamaError as error:
                raise EdgedError(
                    ErrorCode.LOW_MEMORY, f"embeddings can't be computed now: {error}; try again later"
                ) from None
        return self._context

    def _tokens(self, text: str, number: int, context: EmbeddingContext) -> list[int]:
        tokens = self._tokenize(text)
        if not tokens:
            raise invalid(f"input.{number} has nothing that the model reads: leave it out")
        if len(tokens) > context.context:
            raise EdgedError(
                ErrorCode.PROMPT_TOO_LONG,
                f"input.{number} has {len(tokens)} tokens; the context holds {context.context}: "
                "split the text",
            )
        return tokens

    def _budget(self, context: EmbeddingContext, *, others_wait: bool) -> int:
        """Return how many tokens the next pass may have."""
        seconds = min(self._step_seconds if others_wait else math.inf, self._most_seconds)
        if self._deterministic or seconds == math.inf:
            return context.pass_tokens
        if self._token_seconds is None:
            return min(_UNMEASURED_TOKENS, context.pass_tokens)
        return max(1, min(int(seconds / self._token_seconds), context.pass_tokens))

    def _choose(self, context: EmbeddingContext, budget: int) -> list[tuple[Job, Text]]:
        """Choose the texts of the next pass: the one that is begun, else one of each request in turn."""
        if self._begun is not None:
            if not self._begun[0].cancelled:
                return [self._begun]
            self._forget(context)
        return self._jobs.choose(budget, 1 if self._deterministic else TEXTS_AT_ONCE)

    @staticmethod
    def _run(context: EmbeddingContext, slot: int, text: Text, budget: int) -> Run:
        end = text.read + budget if context.reads_in_pieces else None
        return Run(slot, text.read, text.tokens[text.read : end], wants_logits=True)

    def _compute(self, context: EmbeddingContext, jobs: list[Job], runs: list[Run]) -> list[Vector] | None:
        started = self._clock()
        with self._lock:
            self._flight = jobs
            context.clear_abort()
        vectors = context.compute(runs)
        with self._lock:
            self._flight = []
        if vectors is not None:
            seconds = (self._clock() - started) / sum(len(run.tokens) for run in runs)
            known = self._token_seconds
            self._token_seconds = seconds if known is None else known + _WEIGHT * (seconds - known)
        return vectors

    def _forget(self, context: EmbeddingContext) -> None:
        """Empty the cells; a text that was begun begins again."""
        context.forget()
        if self._begun is not None:
            self._begun[1].begin_again()
        self._begun = None

    def _finish(self, job: Job, text: Text) -> Embedded | Refused:
        """Return a text's embedding, and let the next request have its turn."""
        vector = text.normalised()
        if vector is None:
            self._jobs.remove(job.request)
            return Refused(
                job.request,
                ErrorCode.INTERNAL,
                f"the model's numbers for input.{text.number} are out of range; is its file sound?",
            )
        self._jobs.done(job)
        return Embedded(job.request, base64.b64encode(vector.tobytes()).decode(), len(text.tokens))

"""What the engine does with the daemon's messages, between steps and while it rests."""

from __future__ import annotations

import math
import queue

from edged import heap
from edged.engine.child.assembler import Assembler
from edged.engine.child.boundary import Boundaries
from edged.engine.child.channel import Channel, log
from edged.engine.child.duty import Duty
from edged.engine.child.embedder import Embedder
from edged.engine.child.llama import Sampler, SamplingParams, Vocabulary
from edged.engine.child.scheduler import Scheduler
from edged.engine.child.sequence import Sequence
from edged.engine.child.text.prompt import PromptBuilder
from edged.engine.child.text.texts import Texts, no_text
from edged.engine.messages import (
    GOVERNED_STEP_SECONDS,
    Cancel,
    Detokenize,
    Embed,
    Generate,
    Heartbeat,
    Left,
    Message,
    Prefixes,
    Prepare,
    Prepared,
    PutBack,
    Refused,
    Render,
    Tokenize,
    Trim,
    Tune,
)
from edged.errors import EdgedError

HEARTBEAT_SECONDS = 5.0


class Server:
    """Serves the daemon's messages with a loaded model.

    Args:
        channel: to the daemon.
        vocabulary: the model's tokens.
        prompts: makes prompts.
        boundaries: finds the ends of their system texts.
        texts: answers questions about texts.
        embedder: computes embeddings.
        scheduler: computes answers; None where the model can't.
    """

    def __init__(
        self,
        channel: Channel,
        vocabulary: Vocabulary,
        prompts: PromptBuilder,
        boundaries: Boundaries,
        *,
        texts: Texts,
        embedder: Embedder,
        scheduler: Scheduler | None,
    ) -> None:
        self._channel = channel
        self._vocabulary = vocabulary
        self._prompts = prompts
        self._boundaries = boundaries
        self._texts = texts
        self._embedder = embedder
        self._scheduler = scheduler
        self._prefixes: Prefixes | None = None  # as the daemon knows them
        self._duty = Duty()
        channel.on_cancel = self._interrupt

    def serve(self) -> None:
        """Compute until the daemon closes the channel.

        Messages come before the next step; but of those about texts, which take their time, one a step.
        """
        if self._scheduler is not None:
            self._tell_prefixes(self._scheduler.prefixes)
        while True:
            try:
                message = self._next()
            except queue.Empty:
                pass
            else:
                if message is None:
                    return
                self._handle(message)
                if not isinstance(message, Prepare | Tokenize | Detokenize | Render | Embed):
                    continue
            if self._duty.rest() <= 0:
                self._step()

    def _next(self) -> Message | None:
        """Return a message; wait for one only while there is nothing to compute, or a rest to keep.

        Raises:
            queue.Empty: there is none now.
        """
        if self._generates or self._embedder.has_work:
            return self._channel.inbox.get(timeout=max(0.0, self._duty.rest()))
        return self._channel.inbox.get(timeout=HEARTBEAT_SECONDS)

    @property
    def _generates(self) -> bool:
        return self._scheduler is not None and self._scheduler.has_work

    def _step(self) -> None:
        """Compute a step of the answers and a pass of the embeddings, and say at least that it lives."""
        self._duty.begin()
        if generates := self._generates:
            assert self._scheduler is not None
            self._channel.send(self._scheduler.step())
            self._tell_prefixes(self._scheduler.prefixes)
        embedded = self._embedder.step(others_wait=generates) if self._embedder.has_work else []
        for message in embedded:
            self._channel.send(message)
        if not generates and not embedded:
            if self._scheduler is not None:
                self._scheduler.check()
            self._channel.send(Heartbeat())
        self._duty.end()

    def _tell_prefixes(self, prefixes: Prefixes) -> None:
        if prefixes is not self._prefixes:
            self._prefixes = prefixes
            self._channel.send(prefixes)

    def _interrupt(self, request: int) -> None:
        self._embedder.interrupt(request)
        if self._scheduler is not None:
            self._scheduler.interrupt(request)

    def _handle(self, message: Message) -> None:
        match message:
            case Prepare():
                self._channel.send(self._prepare(message))
            case Tokenize() | Detokenize() | Render():
                self._channel.send(self._texts.answer(message))
            case Embed():
                if refusal := self._embedder.add(message):
                    self._channel.send(refusal)
            case Generate() if self._scheduler is not None:
                self._generate(message, self._scheduler)
            case Cancel():
                self._embedder.cancel(message.request)
                if self._scheduler is not None:
                    self._scheduler.cancel(message.request)
            case PutBack() if self._scheduler is not None:
                if self._scheduler.put_back(message.request):
                    self._channel.send(Left(message.request))
            case Tune():
                self._tune(message)
            case Trim():
                self._embedder.trim()
                if self._scheduler is not None:
                    self._scheduler.limit_prefixes(message.prefix_bytes)
                    self._tell_prefixes(self._scheduler.prefixes)
                heap.trim()
            case _:
                log("warning", "unexpected message", name=type(message).__name__)

    def _tune(self, message: Tune) -> None:
        self._duty.share = message.duty
        most_seconds = GOVERNED_STEP_SECONDS if message.duty < 1 else math.inf
        self._embedder.tune(message.threads, message.threads_batch, most_seconds)
        if self._scheduler is not None:
            self._scheduler.tune(message.threads, message.threads_batch, most_seconds)

    def _prepare(self, message: Prepare) -> Message:
        try:
            if self._scheduler is None:
                raise no_text()
            if message.raw is not None:
                return Prepared(message.request, self._prompts.raw(message.raw), 0)
            messages = message.messages or []
            tokens = self._prompts.build(messages)
            return Prepared(message.request, tokens, self._boundaries.find(messages, tokens))
        except EdgedError as error:
            return Refused(message.request, error.code, error.message)

    def _generate(self, message: Generate, scheduler: Scheduler) -> None:
        params = SamplingParams(**message.sampling)
        sampler = Sampler(self._vocabulary, params, message.prompt)
        assembler = Assembler(message.stop)
        for token in message.produced:  # their text was shown in an earlier life
            sampler.accept(token)
            assembler.feed(token, self._vocabulary.piece(token))
        scheduler.add(
            Sequence(
                request=message.request,
                tokens=[*message.prompt, *message.produced],
                prompt_length=len(message.prompt),
                sampler=sampler,
                assembler=assembler,
                max_tokens=message.max_tokens,
                top_logprobs=message.top_logprobs,
                boundary=message.boundary,
            )
        )

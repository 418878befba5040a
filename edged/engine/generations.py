"""The daemon's side of answers: what the engine computes, or owes since an earlier life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edged.engine.generation import Generation
from edged.engine.messages import Cancel, Delta, FinishReason, Generate, Message, PutBack, Ready, Step
from edged.errors import EdgedError, ErrorCode


class Generations:
    """Generations that have begun and not ended; each outlives the engine.

    Args:
        send: sends a message to the engine; called while it serves.
        on_answer: called when one has ended with an answer.
        most_deaths: of the engine, while it had a generation, after which that is taken for the cause.
    """

    def __init__(
        self, send: Callable[[Message], None], on_answer: Callable[[], None], *, most_deaths: int
    ) -> None:
        self._send = send
        self._on_answer = on_answer
        self._most_deaths = most_deaths
        self._generations: dict[int, Generation] = {}
        self._leaving: dict[int, asyncio.Future[bool]] = {}

    @property
    def at_engine(self) -> bool:
        """Say whether the engine has one."""
        return any(generation.at_engine for generation in self._generations.values())

    def add(self, generation: Generation, ready: Ready | None) -> None:
        """Begin a generation now if the engine serves (and has said `ready`), else by the next `begin`."""
        self._generations[generation.number] = generation
        if ready is not None:
            self._begin(generation, ready)

    def cancel(self, generation: Generation) -> bool:
        """End a generation with finish reason `cancelled`; say whether it is there to be ended."""
        if generation.number not in self._generations:
            return False
        if generation.cancelled:
            return True
        generation.cancelled = True
        if generation.at_engine:
            self._send(Cancel(generation.number))
        else:
            self._end(generation, "cancelled")
        return True

    def put_back(self, generation: Generation) -> asyncio.Future[bool]:
        """Take a generation out of the engine; whether it is out, or has ended meanwhile, comes later."""
        number = generation.number
        if number in self._leaving:
            return self._leaving[number]
        leaving = asyncio.get_running_loop().create_future()
        if number not in self._generations or generation.cancelled:
            leaving.set_result(False)
        elif generation.at_engine:
            self._leaving[number] = leaving
            self._send(PutBack(number))
        else:
            del self._generations[number]
            leaving.set_result(True)
        return leaving

    def take(self, step: Step) -> None:
        """Hand on what a step did; the ended are nobody's concern."""
        for number, done, cached in step.reading:
            if generation := self._generations.get(number):
                generation.watcher.on_reading(done, cached)
        for delta in step.deltas:
            self._on_delta(delta)

    def left(self, number: int, ready: Ready) -> None:
        """Take the engine's word that a generation is out."""
        generation = self._generations.get(number)
        if generation is None:
            return
        generation.at_engine = False
        if generation.cancelled:
            self._end(generation, "cancelled")
        elif not self._leave(generation):  # who wanted it has gone: nobody would give it back
            self._begin(generation, ready)

    def begin(self, ready: Ready) -> None:
        """Give all to an engine that has just become ready."""
        for generation in list(self._generations.values()):
            self._begin(generation, ready)

    def on_death(self, error: EdgedError, *, blameless: bool) -> None:
        """Keep what ran for the next engine, but not what several died of: that fails with this error."""
        for generation in list(self._generations.values()):
            generation.deaths += generation.at_engine and not blameless
            generation.at_engine = False
            if generation.cancelled:
                self._end(generation, "cancelled")
            elif generation.deaths >= self._most_deaths:
                self._fail(generation, error)
            else:
                self._leave(generation)

    def fail(self, error: EdgedError) -> None:
        """End all with an error, but those that are cancelled."""
        for generation in list(self._generations.values()):
            if generation.cancelled:
                self._end(generation, "cancelled")
            else:
                self._fail(generation, error)

    def _begin(self, generation: Generation, ready: Ready) -> None:
        length = len(generation.prompt) + len(generation.produced)
        if length >= ready.context:  # an earlier life had more memory
            if generation.produced:
                self._end(generation, "length")
                return
            error = EdgedError(
                ErrorCode.PROMPT_TOO_LONG,
                f"the prompt has {length} tokens, and the context shrank to {ready.context} when the engine "
                "was started again; shorten the prompt",
            )
            self._fail(generation, error)
            return
        self._send(
            Generate(
                request=generation.number,
                prompt=generation.prompt.tokens,
                boundary=generation.prompt.boundary,
                produced=generation.produced,
                max_tokens=generation.max_tokens,
                stop=[*generation.stop, *ready.stops],
                sampling=generation.sampling,
                top_logprobs=generation.top_logprobs,
            )
        )
        generation.at_engine = True

    def _leave(self, generation: Generation) -> bool:
        """Let a generation go if somebody waits for that, and say so."""
        leaving = self._leaving.pop(generation.number, None)
        if leaving is None or leaving.done():
            return False
        del self._generations[generation.number]
        leaving.set_result(True)
        return True

    def _on_delta(self, delta: Delta) -> None:
        generation = self._generations.get(delta.request)
        if generation is None:
            return
        generation.produced += delta.tokens
        if delta.finish is not None:
            self._forget(generation)
            if delta.finish != "cancelled":
                self._on_answer()
        generation.watcher.on_delta(delta)

    def _end(self, generation: Generation, reason: FinishReason) -> None:
        self._forget(generation)
        generation.watcher.on_delta(Delta(generation.number, [], "", [], reason))

    def _fail(self, generation: Generation, error: EdgedError) -> None:
        self._forget(generation)
        generation.watcher.on_failed(error)

    def _forget(self, generation: Generation) -> None:
        del self._generations[generation.number]
        generation.at_engine = False
        leaving = self._leaving.pop(generation.number, None)
        if leaving is not None and not leaving.done():
            leaving.set_result(False)

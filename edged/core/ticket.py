"""One request on its way through the core."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from edged.core.answer import Answer
from edged.core.outgoing import Outgoing
from edged.core.timings import Stopwatch
from edged.engine.generation import Generation, Prompt
from edged.engine.messages import Delta
from edged.errors import EdgedError
from edged.protocol import Client, Done, Failed, FinishReason, Frame, Request, Terminal, Usage

FORGOTTEN: dict[str, Any] = {"prompt": None, "messages": None, "system": None, "stop": (), "logit_bias": {}}

State = Literal["queued", "running", "put_back", "finished"]


class Key(NamedTuple):
    """What tells requests apart: ids are the requester's own, and so are names on each way in."""

    way: str
    client: str
    id: str


class Ticket:
    """A request, from admission to its terminal frame.

    Attributes:
        id: the requester's name for it, or the one that edged made.
        client: who asked.
        request: what was asked; without its texts once it has finished.
        state: queued, running, put_back (it has begun, and waits to go on) or finished.
        created: unix time of admission.
        terminal: the last frame, once it has finished.
        answer: as far as it has come.
        outgoing: the frames before the last.
        prompt: in tokens; None while they are not known.
        max_tokens: most tokens of the answer, once the prompt is known.
        generation: the engine's part, once it runs.
        session_turns_dropped: old turns that did not fit the context.
        attempt: how many daemons have begun it, this one included.
        serial: its row in the journal, while it has one.
        durable: whether it outlives the daemon: it is written down, or about to be.
        admitted: whether it waits for its turn, or has had it.
        on_change: called when more has come, as `change` ends; it must not raise.

    Args:
        on_cancel: told when its requester wants no more.
        on_finish: told when it has finished.
        waited: seconds that it waited in daemons before this one.
    """

    def __init__(
        self,
        request: Request,
        client: Client,
        *,
        id: str,
        body_hash: bytes,
        on_cancel: Callable[[Ticket], None],
        on_finish: Callable[[Ticket], None],
        attempt: int = 1,
        waited: float = 0.0,
    ) -> None:
        self.id = id
        self.client = client
        self.request = request
        self.body_hash = body_hash
        self.attempt = attempt
        self.serial: int | None = None
        self.durable = False
        self._on_cancel = on_cancel
        self._on_finish = on_finish
        self.admitted = False
        self.state: State = "queued"
        self.created = time.time()
        self.terminal: Terminal | None = None
        self.answer = Answer()
        self.outgoing = Outgoing(id, attempt, self.answer, stream=request.stream)
        self.prompt: Prompt | None = None
        self.max_tokens = 0
        self.generation: Generation | None = None
        self.session_turns_dropped = 0
        self._stopwatch = Stopwatch(waited)
        self.suspended = False
        self.on_change: Callable[[], None] = lambda: None
        self._changed = asyncio.Event()
        self._finished = asyncio.Event()

    @property
    def key(self) -> Key:
        """Return what the request is found by."""
        return Key(self.client.way, self.client.name, self.id)

    @property
    def frames(self) -> tuple[Frame, ...]:
        """Return the frames handed on so far; of a finished request its first and its last."""
        last = (self.terminal,) if self.terminal is not None else ()
        return (*self.outgoing.frames, *last)

    @property
    def size(self) -> int:
        """Return about how many bytes a finished ticket takes."""
        answer = self.terminal if isinstance(self.terminal, Done) else self.answer
        return 2048 + 2 * len(answer.text) + 256 * sum(1 + len(entry.top) for entry in answer.logprobs)

    @property
    def waited(self) -> float:
        """The seconds since admission, in earlier daemons too."""
        return self._stopwatch.waited

    @waited.setter
    def waited(self, seconds: float) -> None:
        self._stopwatch.waited = seconds

    @property
    def completion_tokens(self) -> int:
        """Return how many tokens the answer has."""
        return len(self.generation.produced) if self.generation else 0

    # --- for frontends ---

    def take_frame(self) -> Frame | None:
        """Return the next frame, None if there is none yet; the terminal frame again once it was reached."""
        return self.outgoing.take(len(self.prompt or ())) or self.terminal

    async def next_frame(self) -> Frame:
        """Return the next frame, waiting for it."""
        while (frame := self.take_frame()) is None:
            await self.change()
        return frame

    async def change(self) -> None:
        """Wait until more has come: text, progress or the end."""
        self._changed.clear()
        await self._changed.wait()

    async def wait(self) -> Terminal:
        """Return the terminal frame, waiting for it."""
        await self._finished.wait()
        assert self.terminal is not None
        return self.terminal

    def cancel(self) -> None:
        """End the request with what it has so far; one that has finished is left alone."""
        if self.terminal is None:
            self._on_cancel(self)

    # --- for the core ---

    @classmethod
    def finished(cls, terminal: Terminal, request: Request, client: Client, body_hash: bytes) -> Ticket:
        """Return the ticket of a request that ended in an earlier daemon."""
        ticket = cls(
            request,
            client,
            id=terminal.id,
            body_hash=body_hash,
            on_cancel=lambda ticket: None,
            on_finish=lambda ticket: None,
            attempt=terminal.attempt,
        )
        ticket._end(terminal)
        return ticket

    def suspend(self) -> None:
        """End it without a frame: its row in the journal is for the next daemon."""
        self.suspended = True

    def accept(self, queue_position: int) -> None:
        """Make the first frame."""
        self.outgoing.accept(queue_position)
        self._tell()

    def start(self, generation: Generation) -> None:
        """Note that the request begins to be computed."""
        self.generation = generation
        self.resume()

    def pause(self) -> None:
        """Note that the request is put back: its answer goes on later, where it is."""
        self.state = "put_back"
        self._stopwatch.note_pause()

    def resume(self) -> None:
        """Note that the request is computed from now on."""
        self.state = "running"
        self._stopwatch.note_start()

    def finish(self, reason: FinishReason) -> None:
        """End the request with an answer."""
        prompt_tokens, cached = len(self.prompt or ()), self.outgoing.cached or 0
        self._end(
            Done(
                self.id,
                self.attempt,
                self.outgoing.last_seq,
                finish_reason=reason,
                text=self.answer.text,
                usage=Usage(prompt_tokens, self.completion_tokens, cached),
                timings=self._stopwatch.timings(prompt_tokens - cached, self.completion_tokens),
                session_turns_dropped=self.session_turns_dropped,
                logprobs=tuple(self.answer.logprobs),
            )
        )

    def fail(self, error: EdgedError) -> None:
        """End the request without an answer."""
        self._end(
            Failed(
                self.id,
                self.attempt,
                self.outgoing.last_seq,
                code=error.code,
                message=error.message,
                retry_after_s=error.retry_after_s,
                param=error.param,
            )
        )

    # --- Watcher of the generation ---

    def on_reading(self, done: int, cached: int) -> None:
        """Note how much of the prompt is read."""
        if self.outgoing.note_reading(done, cached):
            self._tell()

    def on_delta(self, delta: Delta) -> None:
        """Take text, and the end."""
        if delta.tokens:
            self._stopwatch.note_token()
        self.answer.add(delta.text, delta.logprobs)
        if delta.finish is not None:
            self.finish(delta.finish)
        elif delta.text:
            self._tell()

    def on_failed(self, error: EdgedError) -> None:
        """Take the engine's word that there will be no answer."""
        self.fail(error)

    def _tell(self) -> None:
        self._changed.set()
        self.on_change()

    def _end(self, terminal: Terminal) -> None:
        if self.terminal is not None or self.suspended:
            return
        self.terminal = terminal
        self.state = "finished"
        self._on_finish(self)
        # What is kept for duplicates is the terminal frame; all else would add up.
        self.outgoing.end()
        if isinstance(terminal, Failed):
            self.answer.logprobs.clear()
        self.prompt = self.generation = None
        self.request = self.request.model_copy(update=FORGOTTEN)
        self._finished.set()
        self._tell()


@dataclass(frozen=True, slots=True)
class Admitted:
    """What became of a request that was let in.

    Attributes:
        ticket: where its frames come from.
        repeated: whether it is a repeat; the ticket is the earlier request's then.
    """

    ticket: Ticket
    repeated: bool = False

"""What the engine has been asked and has not answered yet: it outlives the process."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import structlog

from edged.engine.embeddings import Embedding, Embeddings
from edged.engine.generation import Generation, model_changed
from edged.engine.generations import Generations
from edged.engine.messages import Embedded, Left, Message, Prepared, Ready, Refused, Said, Step, Tokenized
from edged.engine.questions import Answer, Question, Questions
from edged.engine.supervision.supervisor import Supervisor
from edged.errors import EdgedError, ErrorCode

_log = structlog.get_logger(__name__)

MOST_DEATHS = 2  # a request that was running at so many is taken for the cause


class Work:
    """Questions, embeddings and generations: numbered, sent to the engine, and kept until it answers.

    Attributes:
        generations: the answers among it.
        used_at: by the monotonic clock, when it was asked or answered last, or became ready.

    Args:
        supervisor: of the engine's process.
        serving: returns what the engine said of itself, None unless it serves now.
    """

    def __init__(self, supervisor: Supervisor, serving: Callable[[], Ready | None]) -> None:
        self._supervisor = supervisor
        self._serving = serving
        self._numbers = itertools.count(1)
        self.used_at = time.monotonic()
        self._key = ""  # the model's that was served last
        self._questions = Questions(supervisor.send, most_deaths=MOST_DEATHS)
        self._embeddings = Embeddings(supervisor.send, most_deaths=MOST_DEATHS)
        self.generations = Generations(supervisor.send, supervisor.forgive, most_deaths=MOST_DEATHS)

    @property
    def at_engine(self) -> bool:
        """Say whether the engine owes an answer."""
        return self._questions.at_engine or self._embeddings.at_engine or self.generations.at_engine

    def number(self) -> int:
        """Return a number for a new request."""
        return next(self._numbers)

    async def ask(self, question: Question) -> Answer:
        """Return the answer to a question, waiting for the engine.

        Raises:
            EdgedError: the engine refuses, or `engine_crashed` or `model_unavailable`.
        """
        self._expect_answer()
        return await self._questions.ask(question, engine_serves=self._serving() is not None)

    async def embed(self, texts: Sequence[str], on_begin: Callable[[], None]) -> list[Embedding]:
        """Return the embedding of each text, waiting for the engine; see `Embeddings.embed`."""
        self._expect_answer()
        serves = self._serving() is not None
        return await self._embeddings.embed(self.number(), texts, on_begin, engine_serves=serves)

    def generate(self, generation: Generation) -> None:
        """Begin a generation, or go on with it, now or as soon as the engine is ready."""
        generation.number = self.number()
        self._expect_answer()
        self.generations.add(generation, self._serving())

    def take(self, message: Message, ready: Ready | None) -> None:
        """Hand the engine's word to whom it concerns; the ended are nobody's concern."""
        self.used_at = time.monotonic()
        match message:
            case Step():
                self.generations.take(message)
            case Left() if ready is not None:
                self.generations.left(message.request, ready)
            case Prepared() | Tokenized() | Said():
                self._questions.settle(message.request, message)
            case Embedded():
                if self._embeddings.take(message):
                    self._supervisor.forgive()
            case Refused():
                error = EdgedError(message.code, message.message)
                if not self._embeddings.refuse(message.request, error):
                    self._questions.settle(message.request, error)
            case _:
                _log.warning("unexpected message from the engine", name=type(message).__name__)

    def begin(self, ready: Ready, key: str) -> None:
        """Send all to an engine that has just become ready; what another model began, this one can't end.

        Args:
            ready: what the engine said of itself.
            key: tells its model from others.
        """
        self.used_at = time.monotonic()
        self._questions.begin()
        before, self._key = self._key, key
        if before not in ("", key):
            self._fail_computed(model_changed())
        self.generations.begin(ready)
        self._embeddings.begin()

    def on_death(self, reason: str, *, blameless: bool) -> None:
        """Keep what ran for the next life, but for what was running at too many deaths."""
        error = EdgedError(
            ErrorCode.ENGINE_CRASHED,
            f"the engine died {MOST_DEATHS} times while it worked on this request (last: {reason}); "
            "the log says more",
        )
        self._questions.on_death(error, blameless=blameless)
        self._embeddings.on_death(error, blameless=blameless)
        self.generations.on_death(error, blameless=blameless)

    def fail(self, error: EdgedError) -> None:
        """End everything with an error."""
        self._questions.fail(error)
        self._fail_computed(error)

    def _fail_computed(self, error: EdgedError) -> None:
        self._embeddings.fail(error)
        self.generations.fail(error)

    def _expect_answer(self) -> None:
        self.used_at = time.monotonic()
        self._supervisor.wake()
        if not self.at_engine:
            self._supervisor.expect_answer()

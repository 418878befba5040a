"""The daemon's side of questions about texts: each is answered at once, without computing the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from edged.engine.messages import Detokenize, Prepare, Prepared, Render, Said, Tokenize, Tokenized
from edged.errors import EdgedError

Question = Prepare | Tokenize | Detokenize | Render
Answer = Prepared | Tokenized | Said


@dataclass(slots=True, eq=False)
class _Asked:
    question: Question
    answer: asyncio.Future[Answer] = field(default_factory=asyncio.Future)
    deaths: int = 0


class Questions:
    """Questions that wait for their answers.

    The engine has one at a time: those that nobody waits for any more cost nothing.

    Args:
        send: sends a question to the engine; called while it serves.
        most_deaths: of the engine, while it had a question, after which that is taken for the cause.
    """

    def __init__(self, send: Callable[[Question], None], *, most_deaths: int) -> None:
        self._send = send
        self._most_deaths = most_deaths
        self._asked: dict[int, _Asked] = {}
        self._sent: int | None = None

    @property
    def at_engine(self) -> bool:
        """Say whether the engine has one."""
        return self._sent is not None

    async def ask(self, question: Question, *, engine_serves: bool) -> Answer:
        """Return the answer to a question, waiting for the engine.

        Raises:
            EdgedError: the engine refuses, or `engine_crashed` or `model_unavailable`.
        """
        asked = self._asked[question.request] = _Asked(question)
        if engine_serves:
            self._next()
        try:
            return await asked.answer
        finally:
            self._asked.pop(question.request, None)

    def settle(self, number: int, outcome: Answer | EdgedError) -> None:
        """Take the engine's answer, or its refusal, and send the next question."""
        if number != self._sent:  # of something else that nobody waits for any more
            return
        if asked := self._asked.pop(number, None):
            _settle(asked, outcome)
        self.begin()

    def begin(self) -> None:
        """Send the next question to an engine that has none."""
        self._sent = None
        self._next()

    def on_death(self, error: EdgedError, *, blameless: bool) -> None:
        """Ask the next engine again, but not what it died of: that fails with this error."""
        asked = self._asked.get(self._sent or 0)
        self._sent = None
        if asked is not None and not blameless:
            asked.deaths += 1
            if asked.deaths >= self._most_deaths:
                _settle(asked, error)

    def fail(self, error: EdgedError) -> None:
        """Answer all with an error."""
        for asked in self._asked.values():
            _settle(asked, error)

    def _next(self) -> None:
        if self._sent is None and self._asked:
            self._sent, asked = next(iter(self._asked.items()))
            self._send(asked.question)


def _settle(asked: _Asked, outcome: Answer | EdgedError) -> None:
    if asked.answer.done():
        return
    if isinstance(outcome, EdgedError):
        asked.answer.set_exception(outcome)
    else:
        asked.answer.set_result(outcome)

"""The daemon's memory of a request that the engine computes: enough to go on after its death."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from edged.engine.messages import Delta
from edged.errors import EdgedError, ErrorCode


class Watcher(Protocol):
    """Who is told how a generation goes."""

    def on_reading(self, done: int, cached: int) -> None:
        """So many tokens of the prompt are read; `cached` of them had been computed before."""

    def on_delta(self, delta: Delta) -> None:
        """Text came, or the end."""

    def on_failed(self, error: EdgedError) -> None:
        """It ends without an answer."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine reads before it answers.

    Attributes:
        tokens: their ids.
        boundary: how many of them end the system text; 0: unknown.
    """

    tokens: list[int]
    boundary: int = 0

    def __len__(self) -> int:
        """Return how many tokens there are."""
        return len(self.tokens)


@dataclass(slots=True, eq=False)
class Generation:
    """One request as the engine sees it.

    Attributes:
        prompt: what is answered.
        sampling: the fields of the engine's SamplingParams.
        max_tokens: most tokens of the answer.
        stop: strings that end it.
        top_logprobs: how many likeliest tokens to tell at each place; None for no logprobs.
        watcher: told how it goes.
        produced: tokens of the answer so far; they survive the engine.
        number: the engine client's name for it.
        deaths: how often the engine died while it ran there.
        at_engine: whether the living engine has it.
        cancelled: whether its end has been asked for.
    """

    prompt: Prompt
    sampling: dict[str, Any]
    max_tokens: int
    stop: list[str]
    top_logprobs: int | None
    watcher: Watcher
    produced: list[int] = field(default_factory=list)
    number: int = 0
    deaths: int = 0
    at_engine: bool = False
    cancelled: bool = False


def model_changed() -> EdgedError:
    """Return the error of what another model can't go on with."""
    return EdgedError(ErrorCode.MODEL_UNAVAILABLE, "the model was changed while this request ran; ask again")

"""One request's whole state in the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from edged.engine.child.assembler import Assembler


class Draws(Protocol):
    """What draws a sequence's tokens: `llama.Sampler`, or a test's."""

    def accept(self, token: int) -> None:
        """Count a token that was drawn before."""

    def close(self) -> None:
        """Free what it holds."""


@dataclass(slots=True, eq=False)
class Sequence:
    """A request that is being computed.

    Attributes:
        request: the daemon's number of it.
        tokens: the prompt's, then the answer's.
        prompt_length: how many of them are the prompt.
        sampler: draws its tokens.
        assembler: makes its text.
        max_tokens: most tokens of the answer.
        top_logprobs: how many likeliest tokens to tell; None for no logprobs at all.
        boundary: how many tokens of the prompt end its system text; 0: unknown.
        slot: its stream of the KV cache; None while it waits for one.
        computed: how many of `tokens` the KV cache holds. It runs after len(tokens): the difference is
            what is left to read, and 1 means that the next step draws a token.
        due: how many prompt tokens of all requests may be read until its prompt is: the earliest is read
            first. So short prompts pass long ones, but delay none by more than its own length.
        cancelled: whether its end has been asked for.
        cached: how many tokens it had not to compute when it was given its stream.
        marks: positions at which a piece of its prompt ends and its state is saved.
        leader: who reads a beginning that it waits for; None for nobody.
        meets: how long that beginning is.
    """

    request: int
    tokens: list[int]
    prompt_length: int
    sampler: Draws
    assembler: Assembler
    max_tokens: int
    top_logprobs: int | None = None
    boundary: int = 0
    slot: int | None = None
    computed: int = 0
    due: int = 0
    cancelled: bool = False
    cached: int = 0
    marks: set[int] = field(default_factory=set)
    leader: Sequence | None = None
    meets: int = 0

    @property
    def is_following(self) -> bool:
        """Say whether what it waits for is still to come."""
        leader = self.leader
        return leader is not None and leader.slot is not None and leader.computed < self.meets

    @property
    def unread(self) -> int:
        """Return how many tokens are not in the KV cache yet."""
        return len(self.tokens) - self.computed

    @property
    def readable(self) -> int:
        """Return how many of the unread tokens come before the next mark."""
        return (
            min((mark for mark in self.marks if mark > self.computed), default=len(self.tokens))
            - self.computed
        )

    @property
    def produced(self) -> int:
        """Return how many tokens the answer has."""
        return len(self.tokens) - self.prompt_length

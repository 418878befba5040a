"""Copies of states, kept for prompts that begin alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edged.engine.child.llama import LlamaError, State
from edged.engine.child.reuse import common_length
from edged.engine.messages import PrefixReuse

# A state at the end of a system text outlives others that were used so many times of looking later.
BOUNDARY_BONUS = 256


@dataclass(slots=True, eq=False)
class Prefix:
    """A state that is kept.

    Attributes:
        tokens: what it is the state of.
        state: the copy.
        bonus: how much longer than others it is kept.
        used: when it was last of use, in times of looking.
    """

    tokens: list[int]
    state: State
    bonus: int
    used: int

    @property
    def rank(self) -> int:
        """Return what decides who goes first: the least."""
        return self.used + self.bonus


class PrefixStore:
    """States by their tokens, bounded in bytes; those of least use go first.

    Attributes:
        max_bytes: what they may take.
        bytes: what they take.

    Args:
        max_bytes: the same; it can be lowered later.
        cutting: where a state can be cut.
    """

    def __init__(self, max_bytes: int, cutting: PrefixReuse) -> None:
        self.max_bytes = self._most_bytes = max_bytes
        self._cutting = cutting
        self.bytes = 0
        self._prefixes: list[Prefix] = []
        self._now = 0

    def __iter__(self) -> Iterator[Prefix]:
        return iter(self._prefixes)

    def __len__(self) -> int:
        return len(self._prefixes)

    def make_room(self, tokens: list[int], size: int, *, is_boundary: bool) -> bool:
        """Say whether a state of this size is kept; if so, let go of what it replaces or what has no room."""
        rank = self._now + (BOUNDARY_BONUS if is_boundary else 0)
        staying = sum(prefix.state.size for prefix in self._prefixes if prefix.rank > rank)
        if staying + size > self.max_bytes:
            return False
        for prefix in [prefix for prefix in self if self._is_replaced(prefix, tokens)]:
            self.drop(prefix)
        self._keep_to(self.max_bytes - size)
        return True

    def covers(self, tokens: list[int]) -> int:
        """Return how many of these tokens a state that is kept can be cut to."""
        if self._cutting == "whole":
            return len(tokens) if any(prefix.tokens == tokens for prefix in self) else 0
        return max((common_length(prefix.tokens, tokens, len(tokens)) for prefix in self), default=0)

    def put(self, tokens: list[int], state: State, *, is_boundary: bool) -> None:
        """Keep a state that room was made for."""
        self._now += 1
        prefix = Prefix(tokens, state, BOUNDARY_BONUS if is_boundary else 0, self._now)
        self._prefixes.append(prefix)
        self.bytes += state.size

    def use(self, prefix: Prefix) -> None:
        """Note that a state was of use."""
        self._now += 1
        prefix.used = self._now

    def drop(self, prefix: Prefix) -> None:
        """Forget a state."""
        self._prefixes.remove(prefix)
        self.bytes -= prefix.state.size

    def limit(self, max_bytes: int) -> None:
        """Keep no more than so many bytes from now on, and never more than at first."""
        self.max_bytes = min(max_bytes, self._most_bytes)
        self._keep_to(self.max_bytes)

    def check(self) -> None:
        """Make sure that the figures are right.

        Raises:
            LlamaError: they are not.
        """
        size = sum(prefix.state.size for prefix in self)
        if size != self.bytes or size > self.max_bytes:
            raise LlamaError(f"states take {size} bytes; {self.bytes} are booked, {self.max_bytes} allowed")

    def _keep_to(self, most_bytes: int) -> None:
        while self.bytes > most_bytes:
            self.drop(min(self._prefixes, key=lambda prefix: prefix.rank))

    def _is_replaced(self, prefix: Prefix, tokens: list[int]) -> bool:
        if self._cutting == "whole":
            return prefix.tokens == tokens
        return not prefix.bonus and prefix.tokens == tokens[: len(prefix.tokens)]

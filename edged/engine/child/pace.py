"""How many prompt tokens a step reads, so that it keeps to its time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

ALONE_FACTOR = 4
"""With no stream waiting for its next token, a longer step only costs a newcomer some of its first wait."""
WHOLE_FACTOR = 2.5
"""Streams may wait so many times as long for once where that reads a prompt to its end: fewer passes."""
FEWEST_TOKENS = 8
"""Of a piece, however slow the machine is: a prompt always advances, and a pass over the weights is dear."""

BLOCK_CELLS = 256
"""The library attends over whole blocks of cells (llama_kv_cache::get_n_kv): one token too far costs all."""

# Guesses that steps correct: a pass over the weights costs so many tokens, and so many cells double a token.
_FIXED_TOKENS = 4
_DOUBLE_CELLS = 2000
_WEIGHT = 0.3  # of the newest step
_LEAST_COST = 1e-12  # seconds; not zero, which nothing could raise again
_LEAST_ERROR, _MOST_ERROR = -0.5, 1.0  # of what was expected: a step that was held up tells little


class Piece(NamedTuple):
    """Part of a prompt: so many tokens of it, behind so many (its depth)."""

    tokens: int
    depth: int

    @property
    def cells(self) -> int:
        """Return how many cells each of the tokens attends over."""
        return -(-(self.depth + self.tokens) // BLOCK_CELLS) * BLOCK_CELLS


class Pace:
    """Learns what reading costs and turns a time budget into pieces of prompts.

    A step that reads costs `fixed + sum(tokens * (token + cell * cells))` seconds. The three are learnt one
    step at a time: each is corrected by its share of what was expected. (Least squares would not do: pieces
    that are chosen to take the same time cannot tell the three apart.)

    Attributes:
        most_seconds: what a step takes at most, alone or not; below infinity pieces may be of one token.

    Args:
        step_seconds: how long the streams may wait for their next token while prompts are read.
        most_tokens: the most that one decode takes.
        token_seconds: a first measurement of a prompt token's cost.
    """

    def __init__(self, *, step_seconds: float, most_tokens: int, token_seconds: float) -> None:
        self.most_seconds = math.inf
        self._step_seconds = step_seconds
        self._most_tokens = most_tokens
        self._costs = (_FIXED_TOKENS * token_seconds, token_seconds, token_seconds / _DOUBLE_CELLS)
        self._streams_seconds = 0.0  # of a step that only streams

    def pieces(self, unread: Sequence[Piece], *, beside_streams: bool) -> list[Piece]:
        """Return what a step reads of these prompts, the first ones first.

        Beside streams it takes what their own step leaves of the time, but never less than that took: where
        even streaming is slow, a prompt still gets half of the machine. It takes longer once where that reads
        the first prompt to its end.
        """
        budget = whole = self._step_seconds * ALONE_FACTOR
        if beside_streams:
            budget = max(self._step_seconds - self._streams_seconds, self._streams_seconds)
            whole = max(budget, self._step_seconds * WHOLE_FACTOR - self._streams_seconds)
        if (first := self.seconds(unread[:1])) <= whole:
            budget = max(budget, first)
        fixed, token, cell = self._costs
        budget = min(budget, self.most_seconds) - fixed
        room = self._most_tokens
        fewest = FEWEST_TOKENS if self.most_seconds == math.inf else 1
        pieces: list[Piece] = []
        for rest in unread:
            seconds = token + cell * rest._replace(tokens=1).cells
            piece = min(rest.tokens, room, max(fewest, round(budget / seconds)))
            if piece <= 0:
                break
            if not pieces:  # in equal parts: a small last one would cost a pass over the weights, too
                span = self._within_block(rest)
                piece = math.ceil(span / math.ceil(span / piece))
            pieces.append(Piece(piece, rest.depth))
            budget -= piece * seconds
            room -= piece
            fewest = max(0, fewest - piece)
        return pieces

    def _within_block(self, rest: Piece) -> int:
        """Return how many of these tokens to read up to the end of the block of cells.

        It is that of the next block where so few are left of this one that another pass over the weights
        costs more than to attend over both.
        """
        fixed, _, cell = self._costs
        left = BLOCK_CELLS - rest.depth % BLOCK_CELLS
        if left * BLOCK_CELLS * cell < fixed:
            left += BLOCK_CELLS
        return min(left, rest.tokens)

    def seconds(self, pieces: Sequence[Piece]) -> float:
        """Return how long a step is expected to take that reads these; without any, one of streams."""
        return sum(self._shares(pieces)) if pieces else self._streams_seconds

    def learn(self, pieces: Sequence[Piece], seconds: float) -> None:
        """Take note of how long a step took that read these; without any, one of streams."""
        if not pieces:
            known = self._streams_seconds or max(_LEAST_COST, seconds)
            self._streams_seconds = known + _WEIGHT * known * _error(seconds, known)
            return
        shares = self._shares(pieces)
        expected = sum(shares)
        step = _WEIGHT * _error(seconds, expected) * expected / sum(share * share for share in shares)
        fixed, token, cell = (
            max(_LEAST_COST, cost * (1 + step * share))
            for cost, share in zip(self._costs, shares, strict=True)
        )
        self._costs = (fixed, token, cell)

    def _shares(self, pieces: Sequence[Piece]) -> tuple[float, float, float]:
        """Return the seconds that are expected of each of the three costs."""
        fixed, token, cell = self._costs
        tokens = cells = 0
        for piece in pieces:
            tokens += piece.tokens
            cells += piece.tokens * piece.cells
        return fixed, token * tokens, cell * cells


def _error(seconds: float, expected: float) -> float:
    """Return by how much an expectation was wrong, as a share of it."""
    return min(_MOST_ERROR, max(_LEAST_ERROR, seconds / expected - 1))

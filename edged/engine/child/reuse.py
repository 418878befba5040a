"""Which computed states a sequence may go on from: the rules, apart from what follows them."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

from edged.engine.child.sequence import Sequence
from edged.engine.messages import PrefixReuse

# Pieces of a prompt in deterministic mode end at multiples of this: where they are cut changes the text.
FIXED_PIECE = 64
WORTHWHILE_TOKENS = 64
"""States of fewer tokens are computed again sooner than they are looked after."""
_WORTHWHILE_SHARE = 8
"""A copy is made where one in so many of its tokens is in no other copy."""


@dataclass(frozen=True, slots=True)
class Reuse:
    """What may be taken over of a state.

    Attributes:
        cutting: where the model's memory can be cut.
        deterministic: take over only what would be computed in the same pieces again: whole pieces of
            prompts, and nothing of answers.
    """

    cutting: PrefixReuse
    deterministic: bool

    def lasting(self, sequence: Sequence) -> int:
        """Return how many of the tokens that a sequence's stream holds others may go on from."""
        if not self.deterministic:
            return sequence.computed
        lasting = self.whole_pieces(min(sequence.computed, sequence.prompt_length))
        return lasting if self.cutting == "anywhere" or lasting == sequence.computed else 0

    def usable(self, held: Many[int], length: int, sequence: Sequence) -> int:
        """Return how many tokens a sequence may take over from a state of `length` tokens of `held`.

        The last of its tokens is always computed: that makes the logits for the next one.
        """
        most = len(sequence.tokens) - 1
        if self.deterministic:
            most = min(most, sequence.prompt_length)
        common = common_length(held, sequence.tokens, min(length, most))
        if self.cutting == "whole":
            return length if common == length else 0
        return self.whole_pieces(common)

    def whole_pieces(self, length: int) -> int:
        """Return where a prompt may be cut, at most `length` from its beginning."""
        return length // FIXED_PIECE * FIXED_PIECE if self.deterministic else length


def common_length(one: Many[int], other: Many[int], most: int) -> int:
    """Return how many tokens two texts begin with in common, at most `most`."""
    low, high = 0, min(most, len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while low < high - 1:
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low


def is_worth_keeping(tokens: int, lost: int) -> bool:
    """Say whether a state of so many tokens is worth a copy, as so many of them would be lost else."""
    return lost >= max(WORTHWHILE_TOKENS, tokens // _WORTHWHILE_SHARE)

"""What a bench measures, within what the daemon allows."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edged.cli.errors import CommandError, Exit

_PROMPT_TOKENS, _ANSWER_TOKENS, _RUNS = 256, 64, 3
_QUICK_PROMPT_TOKENS, _QUICK_ANSWER_TOKENS, _QUICK_RUNS = 64, 16, 1
_LONGEST_WORD = 8  # bytes, its space counted
_ROOM = 64  # tokens: a prompt is not met to the token


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured.

    Attributes:
        batches: how many requests at once, one batch after the other.
        prompt_words: of each prompt.
        answer_tokens: most tokens of each answer.
        runs: how often each batch is measured.
        notes: what the daemon's limits have changed of it.
    """

    batches: list[int]
    prompt_words: int
    answer_tokens: int
    runs: int
    notes: list[str] = field(default_factory=list)


def make_plan(args: Namespace, status: Mapping[str, Any], word_tokens: float, other_tokens: float) -> Plan:
    """Return what is measured of what was asked for.

    Args:
        args: of the command line.
        status: of the daemon.
        word_tokens: tokens of a word.
        other_tokens: tokens of a prompt without words.

    Raises:
        CommandError: the daemon's context has no room for it.
    """
    limits, notes = status["limits"], []
    room = limits["context"] - _ROOM
    if room <= _ROOM:
        raise CommandError(
            f"a context of {limits['context']} tokens is too small to measure anything",
            Exit.FAILED,
            hint="model.context allows more",
        )

    def within(name: str, wanted: int, most: int, key: str) -> int:
        if wanted > most:
            notes.append(f"{name}: {most} instead of {wanted}, for {key}")
        return min(wanted, most)

    defaults = (_QUICK_PROMPT_TOKENS, _QUICK_ANSWER_TOKENS, _QUICK_RUNS)
    if not args.quick:
        defaults = (_PROMPT_TOKENS, _ANSWER_TOKENS, _RUNS)
    prompt_tokens, answer_tokens, runs = (
        given or default
        for given, default in zip((args.prompt_tokens, args.answer_tokens, args.runs), defaults, strict=True)
    )
    prompt_tokens = within("tokens of a prompt", prompt_tokens, room, "the context")
    words = max(1, round((prompt_tokens - other_tokens) / max(word_tokens, 0.1)))
    words = within("words of a prompt", words, limits["max_prompt_bytes"] // _LONGEST_WORD - 2, "its bytes")
    answer_tokens = within("tokens of an answer", answer_tokens, limits["max_tokens"], "limits.max_tokens")
    answer_tokens = within("tokens of an answer", answer_tokens, room // 2, "the context")
    sequences = status["model"]["sequences"]
    most = within("requests at once", sequences, limits["per_client"], "limits.per_client")
    batches = [1 << power for power in range(most.bit_length()) if 1 << power < most]
    return Plan([*batches, most], words, answer_tokens, runs, notes)

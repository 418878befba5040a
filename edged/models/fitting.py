"""The most that a model may be loaded with in the memory that there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edged.models.gguf import GgufFacts
from edged.models.memory import MIN_CONTEXT, MemoryEstimate, estimate, largest_context

SAVING_TYPE = "q8_0"
"""Of the numbers in the KV cache where memory is short: half the size, and answers hardly differ."""


def fitting(
    facts: GgufFacts,
    wanted: MemoryEstimate,
    available_bytes: int,
    how: Callable[[str], dict[str, Any]],
    *,
    may_quantise: bool,
) -> MemoryEstimate:
    """Return what is wanted, or the most of it that fits; where nothing does, the least that there is.

    A request keeps its context as long as it can: first fewer run at once, then the KV cache gets numbers of
    eight bits, and only then the context is made smaller.

    Args:
        facts: the model.
        wanted: the context, sequences and kv_type that are wished for, and what they take.
        available_bytes: what the engine may need.
        how: returns the other arguments of `estimate` for a kv_type.
        may_quantise: whether kv_type may be changed.
    """
    kv_type = wanted.kv_type
    types = (kv_type, SAVING_TYPE) if may_quantise and kv_type == "f16" else (kv_type,)
    for kv_type in types:
        for sequences in range(wanted.sequences, 0, -1):
            found = estimate(facts, wanted.context, sequences, kv_type, **how(kv_type))
            if found.needed_bytes <= available_bytes:
                return found
    context = largest_context(facts, available_bytes, 1, kv_type, at_most=wanted.context, **how(kv_type))
    return estimate(facts, context, 1, kv_type, **how(kv_type))


def least_bytes(facts: GgufFacts) -> int:
    """Return the least memory that a model can be used in: one short request at a time, nothing repacked."""
    context = min(MIN_CONTEXT, facts.n_ctx_train)
    return estimate(facts, context, 1, SAVING_TYPE, flash_attention=True).needed_bytes

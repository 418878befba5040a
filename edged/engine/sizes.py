"""How large a model is loaded: what the settings wish for, as far as there is memory for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edged.engine.messages import Load
from edged.engine.quirks import Quirks
from edged.engine.supervision.oom import Memory
from edged.errors import EdgedError, ErrorCode
from edged.models.fitting import fitting
from edged.models.gguf import GgufFacts
from edged.models.memory import MemoryEstimate, check_fits, estimate, largest_context
from edged.models.sizing import (
    DEFAULT_CONTEXT,
    ENOUGH_CONTEXT,
    Defaults,
    defaults,
    is_memory_bound,
    repacked_types_here,
)
from edged.settings import Settings

BUDGET_SHARE = 0.6
"""Of the memory that is available: what "auto" takes, so that the device keeps room to breathe."""
PREFIX_SHARE = 0.15
"""Of that: what states take that are kept for later prompts."""
MOST_PREFIX_BYTES = 256 << 20
"""The same, at most, where the configuration says nothing."""


@dataclass(frozen=True, slots=True)
class Sized:
    """A model's size.

    Attributes:
        load: what the engine is told.
        memory: what it takes for that, beside the prefix cache.
        wanted: what it would take if there were memory for all that is wished for.
        available_bytes: what there was.
        notes: what an operator should know of it.
    """

    load: Load
    memory: MemoryEstimate
    wanted: MemoryEstimate
    available_bytes: int
    notes: tuple[str, ...]


class Sizes:
    """Fills in what "auto" stands for, and bounds what was asked for by the memory that there is.

    Args:
        settings: what is wished for.
        memory: says how much there is.
        quirks: know what the kernel has killed an engine for.
    """

    def __init__(self, settings: Settings, memory: Callable[[], Memory], quirks: Quirks) -> None:
        self._model = settings.model
        self._engine = settings.engine
        self._memory = memory
        self._quirks = quirks

    def of(self, path: Path, facts: GgufFacts, key: str, *, repack: bool, freed_bytes: int) -> Sized:
        """Return how a model is loaded now.

        Args:
            path: its file.
            facts: what the file says.
            key: tells it on this machine from others.
            repack: whether weights are repacked.
            freed_bytes: memory that is taken now and will be free when it is loaded.

        Raises:
            EdgedError: `low_memory` or `model_unavailable`: even the least of it does not fit, now or ever;
                with the remedy.
        """
        engine, memory = self._engine, self._memory()
        available = memory.available + freed_bytes
        budget = engine.memory_budget_bytes
        limit = available if budget is None else min(available, budget)
        died = self._quirks.oom_bound(key, available)
        limit = limit if died is None else min(limit, died)
        share = min(limit, int(available * BUDGET_SHARE) if budget is None else budget)
        cached = self._prefix_bytes(share)
        how = self._how(repack)
        auto = defaults(len(os.sched_getaffinity(0)), memory.total, memory_bound=is_memory_bound())
        wanted = self._wanted(path, facts, auto, how)
        start = wanted
        if self._model.context == "auto":
            start = self._automatic(facts, wanted, share - cached, how)
        need = fitting(facts, start, limit, how, may_quantise=engine.flash_attention is not False)
        check_fits(need, limit, memory.total if budget is None else min(memory.total, budget))
        load = Load(
            path=str(path),
            context=need.context if self._model.context == "auto" else min(self._model.context, need.context),
            sequences=wanted.sequences if facts.is_encoder else need.sequences,
            batch_tokens=engine.batch_tokens,
            ubatch_tokens=engine.ubatch_tokens,
            threads=auto.threads if engine.threads == "auto" else engine.threads,
            threads_batch=auto.threads_batch if engine.threads_batch == "auto" else engine.threads_batch,
            kv_type=need.kv_type,
            flash_attention=how(need.kv_type)["flash_attention"],
            repack=repack,
            deterministic=engine.deterministic,
            step_milliseconds=engine.step_milliseconds,
            prefix_bytes=max(0, min(cached, limit - need.needed_bytes)),
        )
        notes = (*_size_notes(need, wanted, available), *self._notes(load, died))
        return Sized(load, need, wanted, available, notes)

    def _prefix_bytes(self, share: int) -> int:
        configured = self._engine.prefix_cache_bytes
        return min(MOST_PREFIX_BYTES, int(share * PREFIX_SHARE)) if configured == "auto" else configured

    def _how(self, repack: bool) -> Callable[[str], dict[str, Any]]:
        """Return what tells by the type of the KV cache how else a model is loaded."""
        engine, repacked = self._engine, repacked_types_here() if repack else frozenset()

        def how(kv_type: str) -> dict[str, Any]:
            flash_attention = engine.flash_attention
            if flash_attention == "auto":
                flash_attention = engine.deterministic or kv_type != "f16"
            return {
                "ubatch_tokens": engine.ubatch_tokens,
                "flash_attention": flash_attention,
                "repacked_types": repacked,
            }

        return how

    def _wanted(
        self, path: Path, facts: GgufFacts, auto: Defaults, how: Callable[[str], dict[str, Any]]
    ) -> MemoryEstimate:
        context, kv_type = self._model.context, self._model.kv_type
        if context == "auto":
            context = largest_context(facts, sys.maxsize, 1, kv_type, at_most=DEFAULT_CONTEXT)
        elif context > facts.n_ctx_train:
            raise EdgedError(
                ErrorCode.MODEL_UNAVAILABLE,
                f"model.context is {context}; {path.name} was trained for {facts.n_ctx_train} tokens: "
                "lower model.context",
            )
        sequences = auto.sequences if self._model.sequences == "auto" else self._model.sequences
        return estimate(facts, context, sequences, kv_type, **how(kv_type))

    def _automatic(
        self, facts: GgufFacts, wanted: MemoryEstimate, budget: int, how: Callable[[str], dict[str, Any]]
    ) -> MemoryEstimate:
        """Return what "auto" takes of a budget: rather fewer requests at once than too small a context."""
        kv_type, context = wanted.kv_type, wanted.context
        fewest = 1 if self._model.sequences == "auto" else wanted.sequences
        for sequences in range(wanted.sequences, fewest - 1, -1):
            context = largest_context(
                facts, budget, sequences, kv_type, at_most=wanted.context, **how(kv_type)
            )
            if context >= min(ENOUGH_CONTEXT, wanted.context):
                break
        return estimate(facts, context, sequences, kv_type, **how(kv_type))

    def _notes(self, load: Load, died: int | None) -> Iterator[str]:
        if died is not None:
            yield (
                "an engine that took more was killed for want of memory, so this one takes "
                f"{_mega(died)} at most until more is available"
            )
        configured = self._engine.prefix_cache_bytes
        if configured != "auto" and load.prefix_bytes < configured:
            yield (
                f"the prefix cache gets {_mega(load.prefix_bytes)} of the {_mega(configured)} of "
                "engine.prefix_cache_bytes: the rest of the memory is needed"
            )


def _size_notes(need: MemoryEstimate, wanted: MemoryEstimate, available: int) -> Iterator[str]:
    if _shape(need) != _shape(wanted):
        yield (
            f"the context is {need.context} tokens for each of {need.sequences} requests at once, in "
            f"{need.kv_type}: that is what fits the {_mega(available)} that are available; {wanted.context} "
            f"for each of {wanted.sequences} in {wanted.kv_type} need {_mega(wanted.needed_bytes)}"
        )


def _shape(memory: MemoryEstimate) -> tuple[int, int, str]:
    return memory.context, memory.sequences, memory.kv_type


def _mega(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"

"""Which model to load, and how: decided and checked before the engine touches it."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from edged import paths
from edged.engine.messages import Load
from edged.engine.quirks import Quirks, machine_key
from edged.errors import EdgedError, ErrorCode
from edged.models import store
from edged.models.gguf import GgufFacts, read_gguf
from edged.models.memory import CONTEXT_STEP, check_fits, estimate, largest_context
from edged.models.sizing import DEFAULT_CONTEXT, defaults, repacked_types_here
from edged.settings import Settings

BUDGET_SHARE = 0.6
"""Of the memory that is available: what "auto" takes, so that the device keeps room to breathe."""


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What is loaded, and why so.

    Attributes:
        load: what the engine is told.
        facts: what the model's file says of itself.
        name: what requests call the model.
        file: its path.
        created: unix time of the file.
        key: tells this model file on this machine from others.
        library: what computes, with its version.
        repack_reason: why weights are not repacked for faster kernels, if they aren't.
        notes: what an operator should know.
        remember_repack_fault: called when a kernel has died of SIGILL; says whether the next plan will do
            without repacked weights.
    """

    load: Load
    facts: GgufFacts
    name: str
    file: str
    created: float
    key: str
    library: str
    repack_reason: str | None
    notes: tuple[str, ...]
    remember_repack_fault: Callable[[], bool]


class Planner:
    """Makes a plan from the settings, the file and the machine as they are at each start of the engine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._quirks = Quirks(settings.state_dir / "quirks.json")
        self._library = f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}"

    def plan(self) -> EnginePlan:
        """Return what to load.

        Raises:
            EdgedError: `model_unavailable`: the file is missing, damaged or too large; with the remedy.
        """
        settings = self._settings
        path = store.resolve(settings.model.path, settings.model.name, paths.models_dir(settings.state_dir))
        facts = read_gguf(path)
        key = machine_key(path, self._library)
        repack, repack_reason = self._repack(key)
        load = self._load(path, facts, repack=repack)
        return EnginePlan(
            load=load,
            facts=facts,
            name=store.entry_of(path) or path.stem,
            file=str(path),
            created=path.stat().st_mtime,
            key=key,
            library=self._library,
            repack_reason=repack_reason,
            notes=tuple(self._notes(facts, load)),
            remember_repack_fault=lambda: self._remember_repack_fault(key),
        )

    def _load(self, path: Path, facts: GgufFacts, *, repack: bool) -> Load:
        """Fill in what "auto" stands for, within the memory that there is."""
        model, engine = self._settings.model, self._settings.engine
        memory = psutil.virtual_memory()
        auto = defaults(len(os.sched_getaffinity(0)), memory.total)
        flash_attention = engine.flash_attention
        if flash_attention == "auto":
            flash_attention = engine.deterministic or model.kv_type != "f16"
        sequences = auto.sequences if model.sequences == "auto" else model.sequences
        repacked = repacked_types_here() if repack else frozenset()
        budget = engine.memory_budget_bytes or int(memory.available * BUDGET_SHARE)
        context = model.context
        if context == "auto":
            context = largest_context(
                facts,
                budget,
                sequences,
                model.kv_type,
                at_most=DEFAULT_CONTEXT,
                ubatch_tokens=engine.ubatch_tokens,
                flash_attention=flash_attention,
                repacked_types=repacked,
            )
        elif context > facts.n_ctx_train:
            raise EdgedError(
                ErrorCode.MODEL_UNAVAILABLE,
                f"model.context is {context}; {path.name} was trained for {facts.n_ctx_train} tokens: "
                "lower model.context",
            )
        need = estimate(
            facts,
            context,
            sequences,
            model.kv_type,
            ubatch_tokens=engine.ubatch_tokens,
            flash_attention=flash_attention,
            repacked_types=repacked,
        )
        check_fits(need, engine.memory_budget_bytes or memory.available)
        return Load(
            path=str(path),
            context=context,
            sequences=sequences,
            batch_tokens=engine.batch_tokens,
            ubatch_tokens=engine.ubatch_tokens,
            threads=auto.threads if engine.threads == "auto" else engine.threads,
            threads_batch=auto.threads_batch if engine.threads_batch == "auto" else engine.threads_batch,
            kv_type=model.kv_type,
            flash_attention=flash_attention,
            repack=repack,
            deterministic=engine.deterministic,
            step_milliseconds=engine.step_milliseconds,
        )

    def _repack(self, key: str) -> tuple[bool, str | None]:
        """Say whether to repack weights, and why not."""
        if self._settings.engine.repack == "auto":
            fault = self._quirks.repack_fault(key)
            return fault is None, fault
        if self._settings.engine.repack:
            return True, None
        return False, "engine.repack is false"

    def _remember_repack_fault(self, key: str) -> bool:
        if self._settings.engine.repack != "auto":
            return False
        self._quirks.remember_repack_fault(
            key, "the library's repacked kernels died of SIGILL on this processor, so slower ones are used"
        )
        return True

    def _notes(self, facts: GgufFacts, load: Load) -> list[str]:
        notes = []
        if facts.chat_template is None:
            notes.append("the model has no chat template: a plain one (User: … Assistant: …) is used")
        roomy = min(DEFAULT_CONTEXT, facts.n_ctx_train) // CONTEXT_STEP * CONTEXT_STEP
        if self._settings.model.context == "auto" and load.context < roomy:
            notes.append(f"the context is {load.context} tokens: that is what fits the memory")
        return notes

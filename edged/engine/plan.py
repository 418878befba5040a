"""Which model to load, and how: decided and checked before the engine touches it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import structlog

from edged import paths
from edged.engine.choice import Choice
from edged.engine.messages import Load
from edged.engine.quirks import Quirks, machine_key
from edged.errors import EdgedError, ErrorCode
from edged.models import store
from edged.models.gguf import GgufFacts, read_gguf
from edged.models.memory import CONTEXT_STEP, MemoryEstimate, check_fits, estimate, largest_context
from edged.models.sizing import DEFAULT_CONTEXT, defaults, repacked_types_here
from edged.settings import Settings

_log = structlog.get_logger(__name__)

ChosenBy = Literal["configuration", "model_use"]

BUDGET_SHARE = 0.6
"""Of the memory that is available: what "auto" takes, so that the device keeps room to breathe."""
PREFIX_SHARE = 0.15
"""Of that: what states take that are kept for later prompts."""
MOST_PREFIX_BYTES = 256 << 20
"""The same, at most, where the configuration says nothing."""


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What is loaded, and why so.

    Attributes:
        load: what the engine is told.
        memory: what it will take for that, beside the prefix cache.
        facts: what the model's file says of itself.
        name: what requests call the model.
        file: its path.
        chosen_by: who chose it.
        created: unix time of the file.
        key: tells this model file on this machine from others.
        library: what computes, with its version.
        repack_reason: why weights are not repacked for faster kernels, if they aren't.
        notes: what an operator should know.
        remember_repack_fault: called when a kernel has died of SIGILL; says whether the next plan will do
            without repacked weights.
    """

    load: Load
    memory: MemoryEstimate
    facts: GgufFacts
    name: str
    file: str
    chosen_by: ChosenBy
    created: float
    key: str
    library: str
    repack_reason: str | None
    notes: tuple[str, ...]
    remember_repack_fault: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class _Model:
    path: Path
    facts: GgufFacts
    chosen_by: ChosenBy
    note: str | None = None


class Planner:
    """Makes a plan from the settings, the file and the machine as they are at each start of the engine.

    A model that an operator chose goes before the configured one, and is remembered across restarts.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._choice = Choice(settings.state_dir / "model.json")
        self._trial: tuple[str | None] | None = None  # the choice that is tried out
        self._told: str | None = None  # the fault of the choice that the log has last
        self._quirks = Quirks(settings.state_dir / "quirks.json")
        self._library = f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}"

    def plan(self) -> EnginePlan:
        """Return what to load.

        Raises:
            EdgedError: `model_unavailable`: the file is missing, damaged or too large; with the remedy.
        """
        return self._plan(self._model() if self._trial is None else self._chosen(*self._trial))

    def check(self, name: str | None, *, freed_bytes: int) -> EnginePlan:
        """Return the plan for a model of this device, None for the configured one, without choosing it.

        Args:
            name: the catalogue's name, or the file's with or without its ending.
            freed_bytes: memory that is taken now and will be free when the model is loaded.

        Raises:
            EdgedError: `model_unavailable`: it is missing, damaged or too large; with the remedy.
        """
        return self._plan(self._chosen(name), freed_bytes=freed_bytes)

    @contextlib.contextmanager
    def trying(self, name: str | None) -> Iterator[None]:
        """Plan for this model within the context; a context that is left without a fault keeps the choice.

        Raises:
            EdgedError: `journal_full`: the choice could not be kept, and nothing was tried.
        """
        with self._choice.changing_to(name):
            self._trial = (name,)
            try:
                yield
            finally:
                self._trial = None

    def models(self) -> list[Path]:
        """Return the model files of this device: those of the models directory, and the configured one."""
        files = store.installed(paths.models_dir(self._settings.state_dir))
        configured = self._settings.model.path
        if configured is not None and configured not in files and configured.is_file():
            files.append(configured)
        return files

    def _model(self) -> _Model:
        """Return the chosen model, and the configured one if there is no choice that can be had."""
        note = None
        try:
            if (name := self._choice.read()) is not None:
                return self._chosen(name)
        except EdgedError as error:
            note = f"the model that was chosen can't be had, so the configured one is used: {error.message}"
        if note not in (None, self._told):
            _log.warning("the chosen model can't be had", reason=note)
        self._told = note
        return self._configured(note)

    def _configured(self, note: str | None = None) -> _Model:
        table = self._settings.model
        path = store.resolve(table.path, table.name, paths.models_dir(self._settings.state_dir))
        return _Model(path, read_gguf(path), "configuration", note)

    def _chosen(self, name: str | None) -> _Model:
        if name is None:
            return self._configured()
        path = store.find_file(name, self.models())
        return _Model(path, read_gguf(path), "model_use")

    def _plan(self, model: _Model, *, freed_bytes: int = 0) -> EnginePlan:
        path, facts = model.path, model.facts
        key = machine_key(path, self._library)
        repack, repack_reason = self._repack(key)
        load, memory = self._load(path, facts, repack=repack, freed_bytes=freed_bytes)
        return EnginePlan(
            load=load,
            memory=memory,
            facts=facts,
            name=store.name_of(path),
            file=str(path),
            chosen_by=model.chosen_by,
            created=path.stat().st_mtime,
            key=key,
            library=self._library,
            repack_reason=repack_reason,
            notes=tuple(filter(None, [model.note, *self._notes(facts, load)])),
            remember_repack_fault=lambda: self._remember_repack_fault(key),
        )

    def _load(
        self, path: Path, facts: GgufFacts, *, repack: bool, freed_bytes: int
    ) -> tuple[Load, MemoryEstimate]:
        """Fill in what "auto" stands for, within the memory that there is; say what is needed of it."""
        model, engine = self._settings.model, self._settings.engine
        memory = psutil.virtual_memory()
        available = memory.available + freed_bytes
        auto = defaults(len(os.sched_getaffinity(0)), memory.total)
        flash_attention = engine.flash_attention
        if flash_attention == "auto":
            flash_attention = engine.deterministic or model.kv_type != "f16"
        sequences = auto.sequences if model.sequences == "auto" else model.sequences
        repacked = repacked_types_here() if repack else frozenset()
        budget = engine.memory_budget_bytes or int(available * BUDGET_SHARE)
        auto_bytes = min(MOST_PREFIX_BYTES, int(budget * PREFIX_SHARE))
        prefix_bytes = auto_bytes if engine.prefix_cache_bytes == "auto" else engine.prefix_cache_bytes
        context = model.context
        if context == "auto":
            context = largest_context(
                facts,
                budget - prefix_bytes,
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
        limit = engine.memory_budget_bytes or available
        check_fits(need, limit)
        load = Load(
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
            prefix_bytes=max(0, min(prefix_bytes, limit - need.needed_bytes)),
        )
        return load, need

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
        if facts.chat_template is None and not facts.is_encoder:
            notes.append("the model has no chat template: a plain one (User: … Assistant: …) is used")
        roomy = min(DEFAULT_CONTEXT, facts.n_ctx_train) // CONTEXT_STEP * CONTEXT_STEP
        if self._settings.model.context == "auto" and load.context < roomy:
            notes.append(f"the context is {load.context} tokens: that is what fits the memory")
        wanted = self._settings.engine.prefix_cache_bytes
        if wanted != "auto" and load.prefix_bytes < wanted:
            notes.append(
                f"the prefix cache gets {load.prefix_bytes / 1e6:.0f} MB of the {wanted / 1e6:.0f} MB of "
                "engine.prefix_cache_bytes: the rest of the memory is needed"
            )
        return notes

"""Which model to load, and how: decided and checked before the engine touches it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog

from edged import paths
from edged.engine.choice import Choice
from edged.engine.messages import Load
from edged.engine.quirks import Quirks, machine_key
from edged.engine.sizes import Sizes
from edged.engine.supervision.oom import Memory, memory
from edged.errors import EdgedError
from edged.models import store
from edged.models.gguf import GgufFacts, read_gguf
from edged.models.memory import MemoryEstimate
from edged.settings import Settings

_log = structlog.get_logger(__name__)

ChosenBy = Literal["configuration", "model_use"]

_NO_TEMPLATE = "the model has no chat template: a plain one (User: … Assistant: …) is used"


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What is loaded, and why so.

    Attributes:
        load: what the engine is told.
        memory: what it will take for that, beside the prefix cache.
        wanted_bytes: what it would need if there were memory for all that is wished for.
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
        remember_oom: called when the kernel has killed the engine for want of memory: the next plan is for
            less.
    """

    load: Load
    memory: MemoryEstimate
    wanted_bytes: int
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
    remember_oom: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Model:
    path: Path
    facts: GgufFacts
    chosen_by: ChosenBy
    note: str | None = None


class Planner:
    """Makes a plan from the settings, the file and the machine as they are at each start of the engine.

    A model that an operator chose goes before the configured one, and is remembered across restarts.

    Args:
        settings: what is wished for.
        memory: says how much there is.
    """

    def __init__(self, settings: Settings, memory: Callable[[], Memory] = memory) -> None:
        self._settings = settings
        self._choice = Choice(settings.state_dir / "model.json")
        self._trial: tuple[str | None] | None = None  # the choice that is tried out
        self._told: str | None = None  # the fault of the choice that the log has last
        self._quirks = Quirks(settings.state_dir / "quirks.json")
        self._sizes = Sizes(settings, memory, self._quirks)
        self._library = f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}"

    def plan(self, *, freed_bytes: int = 0) -> EnginePlan:
        """Return what to load.

        Args:
            freed_bytes: memory that is taken now and will be free when the model is loaded.

        Raises:
            EdgedError: `model_unavailable`: the file is missing, damaged or too large; `low_memory`: there is
                too little memory for it now; with the remedy.
        """
        model = self._model() if self._trial is None else self._chosen(*self._trial)
        return self._plan(model, freed_bytes=freed_bytes)

    def check(self, name: str | None, *, freed_bytes: int) -> EnginePlan:
        """Return the plan for a model of this device, None for the configured one, without choosing it.

        Args:
            name: the catalogue's name, or the file's with or without its ending.
            freed_bytes: memory that is taken now and will be free when the model is loaded.

        Raises:
            EdgedError: `invalid`: no model has that name; `model_unavailable`: it is missing, damaged or too
                large; `low_memory`: there is too little memory for it now; with the remedy.
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
        if configured is not None and configured not in files and os.access(configured, os.R_OK):
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

    def _plan(self, model: _Model, *, freed_bytes: int) -> EnginePlan:
        path, facts = model.path, model.facts
        key = machine_key(path, self._library)
        repack, repack_reason = self._repack(key)
        sized = self._sizes.of(path, facts, key, repack=repack, freed_bytes=freed_bytes)
        notes = [model.note, _NO_TEMPLATE if facts.chat_template is None and not facts.is_encoder else None]
        return EnginePlan(
            load=sized.load,
            memory=sized.memory,
            wanted_bytes=sized.wanted.needed_bytes,
            facts=facts,
            name=store.name_of(path),
            file=str(path),
            chosen_by=model.chosen_by,
            created=path.stat().st_mtime,
            key=key,
            library=self._library,
            repack_reason=repack_reason,
            notes=tuple(filter(None, [*notes, *sized.notes])),
            remember_repack_fault=lambda: self._remember_repack_fault(key),
            remember_oom=lambda: self._quirks.remember_oom(
                key, sized.memory.needed_bytes, sized.available_bytes
            ),
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

"""Which model to load, and how: decided and checked before the engine touches it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass

from edged import paths
from edged.engine.messages import Load
from edged.engine.quirks import Quirks, machine_key
from edged.models import store
from edged.models.gguf import GgufFacts, read_gguf
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
        library: what computes, with its version.
        repack_reason: why weights are not repacked for faster kernels, if they aren't.
        notes: what an operator should know.
        remember_repack_fault: called when a repacked kernel has died.
    """

    load: Load
    facts: GgufFacts
    name: str
    file: str
    created: float
    library: str
    repack_reason: str | None
    notes: tuple[str, ...]
    remember_repack_fault: Callable[[], None]


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
        raise NotImplementedError

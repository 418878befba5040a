"""What core and engine do for the watch over memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edged.core import Core
from edged.engine.client import Engine
from edged.watch.memory.actions import Happening, drop_cached
from edged.watch.memory.growth import EngineFacts


class MemoryActions:
    """Has core and engine act.

    Args:
        core: what acts, its engine included.
    """

    def __init__(self, core: Core) -> None:
        self._core = core

    def keep_caches(self, allowed: bool) -> None:
        """Let states and caches be kept again, or drop those that nobody uses and give the memory back."""
        plan = self._core.engine.plan
        self._core.engine.trim(plan.load.prefix_bytes if allowed and plan else 0)

    def serve_fully(self, allowed: bool) -> None:
        """Serve as usual again, or finish what runs and admit one request at a time."""
        self._core.dispatcher.limit(None if allowed else 1)

    def evict(self, reason: str) -> None:
        """End the engine at once and let nothing start it; leave the pool."""

    def drop_file_cache(self) -> None:
        """Give up what the page cache holds of the model's file: the engine has ended."""
        if self._core.engine.plan is not None:
            drop_cached(Path(self._core.engine.plan.file))

    def load_again(self) -> None:
        """Let the engine start again, answer what waited and join the pool."""

    def restart_engine(self, reason: str) -> None:
        """Start the engine anew: nothing runs in it."""
        self._core.engine.supervisor.restart(reason)

    def exit(self, reason: str) -> None:
        """Say the last words and end the daemon so that the service manager starts it again."""

    def tell(self, happening: Happening, figures: Mapping[str, Any]) -> None:
        """Tell what has happened, to the log and to operators."""
        self._core.events.emit(happening, limited=False, **figures)


def engine_facts(engine: Engine) -> EngineFacts:
    """Return what the watch is to know of the engine."""
    plan = engine.plan
    return EngineFacts(
        pid=engine.supervisor.pid,
        planned_bytes=plan.memory.anonymous_bytes + plan.load.prefix_bytes if plan else 0,
        at_rest=engine.is_ready and not engine.is_waiting(),
    )

"""What core and engine do for the watch over memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edged import heap
from edged.core import Core
from edged.watch.memory.actions import Happening, drop_cached
from edged.watch.memory.growth import EngineFacts
from edged.watch.memory.refit import Refit

_NO_BOUND = 1 << 62  # the engine keeps no more than was planned


class MemoryActions:
    """Has core and engine act.

    Args:
        core: what acts, its engine included.
        refit: loads the engine in another size.
        exit: ends the daemon.
    """

    def __init__(self, core: Core, refit: Refit, exit: Callable[[str], None]) -> None:
        self._core = core
        self._refit = refit
        self._exit = exit

    def keep_caches(self, allowed: bool) -> None:
        """Let states and caches be kept again, or drop those that nobody uses and give the memory back."""
        self._core.engine.trim(_NO_BOUND if allowed else 0)
        if allowed:
            self._refit.grow()
        else:
            self._refit.cancel()
            gc.collect()
            heap.trim()

    def shed(self, reason: str) -> None:
        """Begin one request at a time, refuse on the socket, and load smaller when nothing runs."""
        self._core.shortage.shed(reason)
        self._refit.shrink()

    def serve_fully(self) -> None:
        """Serve as usual again."""
        self._refit.cancel()
        self._core.shortage.end()

    def evict(self, reason: str) -> None:
        """End the engine at once and let nothing start it."""
        self._refit.cancel()
        self._core.shortage.evict(reason)

    def drop_file_cache(self) -> None:
        """Give up what the page cache holds of the model's file."""
        if self._core.engine.plan is not None:
            drop_cached(Path(self._core.engine.plan.file))

    def load_again(self) -> None:
        """Let the engine start again."""
        self._core.shortage.load_again()

    def unload(self, reason: str) -> None:
        """End the engine until somebody asks for something."""
        self._core.events.emit("model_unloaded", reason=reason)
        self._core.engine.unload(reason)

    def restart_engine(self, reason: str) -> None:
        """Start the engine anew."""
        self._core.engine.restart(reason)

    def exit(self, reason: str) -> None:
        """End the daemon so that the service manager starts it again."""
        self._exit(f"memory is at its end: {reason}")

    def tell(self, happening: Happening, figures: Mapping[str, Any]) -> None:
        """Tell what has happened, to the log and to operators."""
        self._core.events.emit(happening, limited=False, **figures)


def engine_facts(core: Core) -> EngineFacts:
    """Return what the watch is to know of the engine."""
    engine = core.engine
    plan = engine.plan
    is_used = engine.is_waiting() or core.in_hand() or core.direct.in_hand
    return EngineFacts(
        pid=engine.supervisor.pid,
        planned_bytes=plan.memory.anonymous_bytes + plan.load.prefix_bytes if plan else 0,
        at_rest=engine.is_ready and not is_used,
        used_at=engine.used_at,
    )

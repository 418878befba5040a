"""What becomes of the engine, told as events."""

from __future__ import annotations

from typing import Any

from edged.core.events import Events
from edged.engine.client import Engine


class EngineEvents:
    """Tells of the engine's life: a crash each time, anything else when it has changed."""

    def __init__(self, engine: Engine, events: Events) -> None:
        self._engine = engine
        self._events = events
        self._before: tuple[str, str | None] = ("starting", None)

    def tell(self) -> None:
        """Tell what has become of the engine."""
        engine, reason = self._engine, self._engine.supervisor.reason
        now = engine.state, reason
        before, self._before = self._before, now
        match engine.state:
            case "restarting":
                self._events.emit("engine_crashed", reason=reason)
            case "low_memory" if before[0] != "low_memory":
                self._events.emit("low_memory", reason=reason)
            case "failed" if before != now:
                self._events.emit("model_unavailable", reason=reason)
            case "ready" if before != now:
                self._events.emit("model_loaded", **_loaded(engine))


def _loaded(engine: Engine) -> dict[str, Any]:
    """Return what became ready, and where it is less than what was wished for."""
    plan = engine.plan
    if plan is None:
        return {"model": None}
    load = plan.load
    return {
        "model": plan.name,
        "context": load.context,
        "sequences": load.sequences,
        "kv_type": load.kv_type,
        "notes": list(plan.notes),
    }

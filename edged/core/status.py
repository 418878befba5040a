"""The daemon's state as an operator sees it: the JSON of /v1/status."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import psutil

from edged import __version__

if TYPE_CHECKING:
    from edged.core.service import Core
    from edged.core.ticket import Ticket
    from edged.engine.client import Engine

Phase = Literal["starting", "ready", "degraded", "stopping"]


class ModelInfo(NamedTuple):
    """The model that is served.

    Attributes:
        name: what requests call it.
        created: unix time of its file.
        context: tokens of one request.
        facts: what the file says of itself.
    """

    name: str
    created: int
    context: int
    facts: dict[str, Any]


def phase(core: Core) -> Phase:
    """Return what the daemon is doing in one word."""
    if core.stopping:
        return "stopping"
    if core.engine.is_ready or core.engine.state == "unloaded":  # it is loaded when somebody asks
        return "ready"
    return "degraded" if core.engine.state in ("failed", "restarting", "low_memory") else "starting"


def model(core: Core) -> ModelInfo | None:
    """Return the model that is loaded, or being loaded."""
    plan = core.engine.plan
    if plan is None:
        return None
    facts, ready = plan.facts, core.engine.ready
    return ModelInfo(
        name=plan.name,
        created=int(plan.created),
        context=core.engine.context or plan.load.context,
        facts={
            "name": plan.name,
            "file": plan.file,
            "chosen_by": plan.chosen_by,
            "architecture": facts.architecture,
            "quantisation": facts.quantisation,
            "parameters": facts.n_params,
            "context": core.engine.context or plan.load.context,
            "sequences": plan.load.sequences,
            "kv_type": plan.load.kv_type,
            "template": ready.template if ready else None,
            "generates": ready.generates if ready else None,
            "pooling": ready.pooling if ready else None,
            "dimensions": ready.dimensions if ready else None,
            "size_bytes": facts.file_bytes,
        },
    )


def status(core: Core) -> dict[str, Any]:
    """Return the whole state; null where something is not known."""
    limits = core.settings.limits
    info = model(core)
    return {
        "version": __version__,
        "phase": phase(core),
        "reason": core.engine.supervisor.reason,
        "device_id": core.settings.device_id,
        "uptime_seconds": round(time.monotonic() - core.started, 1),
        "pid": os.getpid(),
        "state_dir": str(core.settings.state_dir),
        "model": info.facts if info else None,
        "engine": _engine(core.engine),
        "requests": {
            "queued": len(core.queue),
            "running": core.running,
            "put_back": len(core.dispatcher.put_back),
            "accepted_total": core.outcomes.accepted,
            "done_total": core.outcomes.done,
            "failed_total": core.outcomes.failed,
            "cancelled_total": core.outcomes.cancelled,
            "put_back_total": core.dispatcher.put_back_total,
        },
        "speed": {
            "prompt_tokens_per_second": _rounded(core.speed.prompt_tokens_per_second),
            "tokens_per_second": _rounded(core.speed.tokens_per_second),
        },
        "sessions": len(core.sessions),
        "memory": {
            "daemon_bytes": _resident(os.getpid()),
            "engine_bytes": _resident(core.engine.supervisor.pid),
            "engine_estimate": _estimate(core.engine),
            "available_bytes": psutil.virtual_memory().available,
        },
        "limits": {
            "queue": limits.queue,
            "per_client": limits.per_client,
            "max_prompt_bytes": limits.max_prompt_bytes,
            "max_tokens": limits.max_tokens,
            "context": info.context if info else None,
        },
        "clock": core.clock.fields(),
        "journal": core.durable.journal.status() if core.durable else None,
        "mqtt": None,
        **{name: part() for name, part in core.status_parts.items()},
    }


def requests(tickets: Iterable[Ticket]) -> list[dict[str, Any]]:
    """Return the states of requests, the oldest first; no texts."""
    return [request(ticket) for ticket in sorted(tickets, key=lambda ticket: -ticket.waited)]


def request(ticket: Ticket) -> dict[str, Any]:
    """Return a request's state as an operator sees it; no texts."""
    return {
        "id": ticket.id,
        "client": ticket.client.name,
        "way": ticket.client.way,
        "state": ticket.state,
        "age_seconds": round(ticket.waited, 1),
        "prompt_tokens": len(ticket.prompt) if ticket.prompt is not None else None,
        "tokens": ticket.completion_tokens,
    }


def _engine(engine: Engine) -> dict[str, Any]:
    supervisor, plan = engine.supervisor, engine.plan
    load = plan.load if plan else None
    return {
        "state": engine.state,
        "pid": supervisor.pid,
        "restarts": max(0, supervisor.restarts),
        "deaths": supervisor.deaths,
        "next_try_seconds": _rounded(supervisor.next_try_seconds),
        "library": plan.library if plan else None,
        "threads": load.threads if load else None,
        "threads_batch": load.threads_batch if load else None,
        "repack": load.repack if load else None,
        "repack_reason": plan.repack_reason if plan else None,
        "kernels": engine.ready.kernels if engine.ready else None,
        "kernel_build": engine.ready.kernel_build if engine.ready else None,
        "flash_attention": load.flash_attention if load else None,
        "deterministic": load.deterministic if load else None,
        "load_progress": supervisor.load_progress,
        "prefix_cache": asdict(engine.prefixes) if engine.prefixes else None,
        "notes": list(plan.notes) if plan else [],
    }


def _estimate(engine: Engine) -> dict[str, int] | None:
    """Return what the engine was expected to take when it was loaded; the prefix cache at most, on top."""
    if engine.plan is None:
        return None
    return {
        "anonymous_bytes": engine.plan.memory.anonymous_bytes,
        "file_bytes": engine.plan.memory.file_bytes,
        "prefix_cache_bytes": engine.plan.load.prefix_bytes,
    }


def _resident(pid: int | None) -> int | None:
    if pid is None:
        return None
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return None


def _rounded(value: float | None) -> float | None:
    return round(value, 2) if value is not None else None

"""What the daemon says to `edgectl top`, made up."""

from __future__ import annotations

from typing import Any

from edged.cli.top_source import Fields, Look


def status(**more: Any) -> dict[str, Any]:
    """Return as much of /v1/status as is looked at; `more` replaces parts of it."""
    return {
        "version": "0.1.0",
        "phase": "ready",
        "reason": None,
        "device_id": "kitchen-3fa2b1",
        "uptime_seconds": 183_600.0,
        "model": {"name": "smollm2-135m-instruct-q4_1", "sequences": 4},
        "engine": {"state": "ready", "load_progress": 1.0},
        "requests": {"queued": 3, "running": 4},
        "limits": {"queue": 64},
        "watch": {"memory": memory(), "thermal": heat()},
        "liveness": {"parts": {"event_loop": {"state": "ok", "still_seconds": 0.0, "bound_seconds": 30.0}}},
        **more,
    }


def memory(**more: Any) -> dict[str, Any]:
    return {
        "level": "ok",
        "total_bytes": 3_974_000_000,
        "available_bytes": 2_104_000_000,
        "evicts_below_bytes": {"available": 238_000_000},
        **more,
    }


def heat(**more: Any) -> dict[str, Any]:
    return {"state": "cool", "reason": None, "celsius": 62.3, "target_celsius": 75.0, **more}


def request(id: str, **more: Any) -> dict[str, Any]:
    """Return a request as the daemon lists it."""
    return {
        "id": id,
        "client": "uid-1000",
        "way": "socket",
        "state": "running",
        "age_seconds": 4.2,
        "prompt_tokens": 182,
        "tokens": 57,
        **more,
    }


def look(
    *requests: Fields,
    tokens: int = 0,
    alarms: tuple[str, ...] = (),
    total: int | None = None,
    everybodys: bool = True,
    **parts: Any,
) -> Look:
    """Return what the daemon said: of requests, of tokens since its start, and parts of its status."""
    telemetry = {"inference": {"answer_tokens_total": tokens}, "watch": {"alarms": list(alarms)}}
    count = len(requests) if total is None else total
    return Look(status(**parts), telemetry, requests, count, everybodys)

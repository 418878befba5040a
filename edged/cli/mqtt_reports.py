"""What a device says of itself on its topics info, health and alarm: in one line, the few things that matter.

The payloads come from the broker, so any shape of them is taken, and what is missing is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edged.cli.output import duration, size

Fields = Mapping[str, Any]


def report(kind: str, fields: Fields) -> str | None:
    """Return a report in one line; None if the kind is none of a report, or nothing of it is known."""
    match kind.partition("/")[0]:
        case "info":
            parts = _info(fields)
        case "health":
            parts = _health(fields)
        case "alarm":
            parts = _alarm(fields)
        case _:
            return None
    return "; ".join(parts) or None


def _info(fields: Fields) -> Iterator[str]:
    if version := _text(fields, "version"):
        yield f"edged {version}"
    if name := _text(fields, "model", "name"):
        sequences, context = _number(fields, "model", "sequences"), _number(fields, "model", "context")
        known = sequences is not None and context is not None
        yield f"{name}, {sequences:.0f} × {context:.0f} tokens" if known else name
    elif "model" in fields:
        yield "no model"
    machine = [_text(fields, "host", "machine")]
    if cores := _number(fields, "host", "cores"):
        machine.append(f"{cores:.0f} cores")
    if memory := _number(fields, "host", "memory_bytes"):
        machine.append(size(int(memory)))
    if any(machine):
        yield ", ".join(filter(None, machine))
    if pool := _text(fields, "capabilities", "pool"):
        yield f"pool {pool}"


def _health(fields: Fields) -> Iterator[str]:
    phase, up = _text(fields, "phase"), _number(fields, "uptime_seconds")
    if phase:
        yield f"{phase}, up {duration(up)}" if up is not None else phase
    names = ("running", "queued", "done_total", "failed_total")
    counts = [(name.removesuffix("_total"), _number(fields, "requests", name)) for name in names]
    if told := [f"{count:.0f} {name}" for name, count in counts if count is not None]:
        yield ", ".join(told)
    if (speed := _number(fields, "speed", "tokens_per_second")) is not None:
        yield f"{speed:.0f} tokens/s"
    memory = [(name, _number(fields, "memory", f"{name}_bytes")) for name in ("engine", "available")]
    if told := [f"{name} {size(int(count))}" for name, count in memory if count is not None]:
        yield ", ".join(told)
    if restarts := _number(fields, "engine_restarts"):
        yield f"the engine was restarted {restarts:.0f} times"
    if problem := _text(fields, "journal", "problem"):
        yield f"journal: {problem}"


def _alarm(fields: Fields) -> Iterator[str]:
    if time := _text(fields, "time"):
        yield f"since {time}"


def _at(fields: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        fields = fields.get(name) if isinstance(fields, Mapping) else None
    return fields


def _text(fields: Fields, *path: str) -> str | None:
    value = _at(fields, path)
    return value if isinstance(value, str) else None


def _number(fields: Fields, *path: str) -> float | None:
    """Return a number that can be shown; JSON as Python reads it knows infinite ones, too."""
    value = _at(fields, path)
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and 0 <= value < 1e18 else None

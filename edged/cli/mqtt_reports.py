"""What a device says of itself on its topics info, health and alarm: in one line, the few things that matter.

The payloads come from the broker, so any shape of them is taken, and what is missing is left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from edged.cli.fields import Fields, at, number, text
from edged.cli.output import duration, size

_CALM = ("ok", "cool", "unmeasured")


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


def levels(health: Fields) -> Iterator[str]:
    """Yield in a few words what the watches hold down for want of memory or for heat."""
    for what, name in (("memory", "memory_level"), ("heat", "thermal_state")):
        word = text(health, "watch", name)
        if word not in (None, *_CALM):
            yield f"{what} {word}"


def _info(fields: Fields) -> Iterator[str]:
    if version := text(fields, "version"):
        yield f"edged {version}"
    if name := text(fields, "model", "name"):
        sequences, context = number(fields, "model", "sequences"), number(fields, "model", "context")
        known = sequences is not None and context is not None
        yield f"{name}, {sequences:.0f} × {context:.0f} tokens" if known else name
    elif "model" in fields:
        yield "no model"
    machine = [text(fields, "host", "machine")]
    if cores := number(fields, "host", "cores"):
        machine.append(f"{cores:.0f} cores")
    if memory := number(fields, "host", "memory_bytes"):
        machine.append(size(int(memory)))
    if any(machine):
        yield ", ".join(filter(None, machine))
    if pool := text(fields, "capabilities", "pool"):
        yield f"pool {pool}"


def _health(fields: Fields) -> Iterator[str]:
    phase, up = text(fields, "phase"), number(fields, "uptime_seconds")
    if phase:
        yield f"{phase}, up {duration(up)}" if up is not None else phase
    names = ("running", "queued", "done_total", "cancelled_total")
    counts = [(name.removesuffix("_total"), number(fields, "requests", name)) for name in names]
    if told := [f"{count:.0f} {name}" for name, count in counts if count is not None]:
        yield ", ".join(told)
    yield from levels(fields)
    alarms = at(fields, "watch", "alarms")
    if isinstance(alarms, list) and (raised := [alarm for alarm in alarms if isinstance(alarm, str)]):
        yield f"alarms: {', '.join(raised)}"
    if at(fields, "mqtt", "journal_can_write") is False:
        yield "the journal can't be written"


def _alarm(fields: Fields) -> Iterator[str]:
    if time := text(fields, "time"):
        yield f"since {time}"

"""What the daemon's watches over itself say, in the lines of `edgectl top`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from edged.cli.fields import number, text
from edged.cli.screen import Line, wrapped
from edged.cli.top_gauges import HEAT_STYLES, LEVEL_STYLES, RED, YELLOW
from edged.cli.top_source import Fields, Look

_ENGINE_STYLES = {"ready": "", "unloaded": "", "starting": YELLOW}


class _Watch(NamedTuple):
    name: str
    state: str
    reason: str
    style: str


def watches(look: Look, columns: int) -> list[Line]:
    """Return a line with the state of each, and below it the reasons of those that have one."""
    found = [_memory(look.status), _heat(look.status), _engine(look.status), *_parts(look.status)]
    alarms = [alarm for alarm in look.telemetry.get("watch", {}).get("alarms", ()) if isinstance(alarm, str)]
    words = [f"{watch.name} {watch.state.replace('_', ' ')}" for watch in found]
    words.append(f"alarms: {', '.join(alarms)}" if alarms else "no alarms")
    styles = {watch.style for watch in found} | {RED if alarms else ""}
    lines = wrapped("watch    ", ", ".join(words), columns, max(styles, key=("", YELLOW, RED).index))
    for watch in found:
        if watch.reason:
            lines += wrapped(f"  {watch.name}: ", watch.reason, columns, watch.style)
    return lines


def _memory(status: Fields) -> _Watch:
    level = text(status, "watch", "memory", "level") or "unknown"
    return _Watch("memory", level, _reason(status, "watch", "memory"), LEVEL_STYLES.get(level, YELLOW))


def _heat(status: Fields) -> _Watch:
    state = text(status, "watch", "thermal", "state") or "unknown"
    return _Watch("heat", state, _reason(status, "watch", "thermal"), HEAT_STYLES.get(state, ""))


def _engine(status: Fields) -> _Watch:
    state = text(status, "engine", "state") or "unknown"
    loaded = number(status, "engine", "load_progress")
    told = f"{state} ({loaded:.0%} loaded)" if state == "starting" and loaded is not None else state
    return _Watch("engine", told, _reason(status), _ENGINE_STYLES.get(state, RED))


def _parts(status: Fields) -> Iterator[_Watch]:
    """Judge the daemon's own parts: one by one only where they stand still."""
    parts = (status.get("liveness") or {}).get("parts", {})
    stalled = {name: part for name, part in parts.items() if text(part, "state") == "stalled"}
    for name, part in stalled.items():
        still, bound = number(part, "still_seconds") or 0.0, number(part, "bound_seconds") or 0.0
        yield _Watch(name, "stalled", f"still for {still:.0f} s, {bound:.0f} s are allowed", RED)
    if parts and not stalled:
        yield _Watch("parts", "ok", "", "")


def _reason(status: Fields, *path: str) -> str:
    return text(status, *path, "reason") or ""

"""How the outcomes of a round are summed up, and the exit code that follows."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from edged.cli.errors import Exit
from edged.cli.fleet_round import NO_ANSWER, OFFLINE, Outcome
from edged.cli.terminal import harmless

_SHOWN = 8


def counts(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return how many devices there were, by what became of their part."""
    found = Counter(outcome.status for outcome in outcomes)
    return {status: found[status] for status in ("ok", "error", NO_ANSWER, OFFLINE)}


def sum_up(outcomes: Sequence[Outcome]) -> Exit:
    """Say on stderr what became of all, where it is more than one or went wrong; return the exit code."""
    found = counts(outcomes)
    lines = []
    if len(outcomes) > 1:
        figures = (f"{count} {status.replace('_', ' ')}" for status, count in found.items() if count)
        lines.append(f"{len(outcomes)} devices: {', '.join(figures)}")
    for status, what in ((NO_ANSWER, "no answer in time from"), (OFFLINE, "not told, as not online:")):
        if names := sorted(outcome.device for outcome in outcomes if outcome.status == status):
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            lines.append(f"{what} {', '.join(names[:_SHOWN])}{more}")
    for line in lines:
        print(f"edgectl: {harmless(line)}", file=sys.stderr)
    return Exit.OK if found["ok"] == len(outcomes) else Exit.FAILED


def fields_of(outcome: Outcome, **more: Any) -> dict[str, Any]:
    """Return an outcome's fields for JSON."""
    error = outcome.fields.get("error")
    if outcome.status == "error" and error is None:
        error = {key: outcome.fields.get(key) for key in ("code", "message")}
    return {
        "device_id": outcome.device,
        "status": outcome.status,
        "seconds": outcome.seconds,
        **more,
        "error": error,
    }

"""The daemon's state in one line, for the service manager."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edged.core import Core


def line(core: Core) -> str:
    """Return phase, model and requests, such as `ready, smollm2-135m-instruct-q4_1, 1 running, 2 queued`."""
    model = core.model.name if core.model else "no model"
    return f"{core.phase}, {model}, {core.running} running, {len(core.queue)} queued"

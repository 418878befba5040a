"""What is counted of requests, and from which of them speed is learnt."""

from __future__ import annotations

import pytest

from edged.core import Core
from edged.errors import EdgedError, ErrorCode

from .conftest import ALICE, FakeEngine, ask


async def test_each_request_counts_once_by_its_outcome(core: Core, engine: FakeEngine) -> None:
    tickets = [
        (await core.submit(ask(id=id), ALICE)).ticket for id in ("cancelled", "failed", "done", "runs")
    ]
    with pytest.raises(EdgedError):
        await core.submit(ask("w " * 120), ALICE)  # refused: it was never let in
    tickets[0].cancel()
    engine.running.pop().watcher.on_failed(EdgedError(ErrorCode.ENGINE_CRASHED, "twice"))
    assert core.speed.service_seconds is None  # nothing was answered so far
    engine.answer()
    counts = core.outcomes
    assert (counts.accepted, counts.done, counts.failed, counts.cancelled) == (4, 1, 1, 1)
    assert core.speed.service_seconds is not None

"""What is counted of requests, and from which of them speed is learnt."""

from __future__ import annotations

from contextlib import suppress

import pytest

from edged.core import Core
from edged.errors import EdgedError, ErrorCode
from edged.protocol import Done

from .conftest import ALICE, FakeEngine, MakeCore, ask


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
    assert counts.failures == {"engine_crashed": 1}
    assert counts.refusals == {"prompt_too_long": 1}
    assert core.speed.service_seconds is not None


async def test_what_is_turned_away_at_the_door_is_a_refusal(make_core: MakeCore) -> None:
    core = make_core(limits={"queue": 1, "max_prompt_bytes": 10})
    for prompt in ("long " * 9, "a", "b", "c"):
        with suppress(EdgedError):
            await core.submit(ask(prompt), ALICE)
    assert core.outcomes.refusals == {"too_large": 1, "busy": 1}
    assert core.outcomes.accepted == 2


async def test_tokens_of_what_failed_count_too(core: Core, engine: FakeEngine) -> None:
    ticket = (await core.submit(ask(), ALICE)).ticket
    await engine.begun()
    engine.say("a")
    engine.running.pop().watcher.on_failed(EdgedError(ErrorCode.ENGINE_CRASHED, "twice"))
    await ticket.wait()
    assert core.outcomes.answer_tokens == 1


async def test_tokens_and_times_of_answers_are_measured(core: Core, engine: FakeEngine) -> None:
    for _ in range(2):
        ticket = (await core.submit(ask("three short words"), ALICE)).ticket
        await engine.begun()
        engine.say("a")
        engine.answer()
        assert isinstance(await ticket.wait(), Done)
    counts = core.outcomes
    assert (counts.prompt_tokens, counts.cached_tokens, counts.answer_tokens) == (6, 0, 4)
    assert counts.first_token_seconds.count == 2
    assert counts.tokens_per_second.count == 2

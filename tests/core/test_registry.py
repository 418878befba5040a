"""Repeats, ids that are used twice, and what is kept of what has ended."""

from __future__ import annotations

import asyncio

import pytest

from edged.core import Core
from edged.errors import EdgedError, ErrorCode

from .conftest import ALICE, BOB, FakeEngine, MakeCore, ask


async def test_repeat_gets_the_same_answer_and_is_not_computed_again(core: Core, engine: FakeEngine) -> None:
    first = await core.submit(ask(id="a"), ALICE)
    running = await core.submit(ask(id="a"), ALICE)
    assert running.repeated
    assert running.ticket is first.ticket
    engine.answer()
    again = await core.submit(ask(id="a"), ALICE)
    assert again.repeated
    assert await again.ticket.wait() is first.ticket.terminal
    assert engine.started == ["a"]


async def test_same_id_with_another_text_is_refused_and_tells_nothing(core: Core) -> None:
    await core.submit(ask("secret words", id="a"), ALICE)
    with pytest.raises(EdgedError) as refused:
        await core.submit(ask("other", id="a"), ALICE)
    assert refused.value.code is ErrorCode.ID_IN_USE
    assert "secret" not in refused.value.message
    assert not (await core.submit(ask("other", id="a"), BOB)).repeated
    assert core.find(BOB, "a") is not core.find(ALICE, "a")


async def test_finished_requests_keep_no_prompt_and_are_forgotten_in_time(
    make_core: MakeCore, engine: FakeEngine
) -> None:
    core = make_core(journal={"keep_results_seconds": 1})
    ticket = (await core.submit(ask("secret words", id="a"), ALICE)).ticket
    engine.answer()
    assert ticket.request.prompt is None
    assert core.find(ALICE, "a") is ticket
    core.registry._clock = lambda: asyncio.get_running_loop().time() + 10
    assert core.find(ALICE, "a") is None


async def test_what_is_kept_of_finished_requests_is_bounded(
    core: Core, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edged.core.registry.MOST_KEPT_BYTES", 10_000)
    for i in range(10):
        ticket = (await core.submit(ask(id=f"a{i}"), ALICE)).ticket
        engine.answer()
        assert (ticket.prompt, ticket.generation) == (None, None)
    kept = [i for i in range(10) if core.find(ALICE, f"a{i}")]
    assert kept == [6, 7, 8, 9]

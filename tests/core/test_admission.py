"""Who is refused, and with which words and figures."""

from __future__ import annotations

import asyncio

import pytest

from edged.core import Core
from edged.errors import EdgedError, ErrorCode
from edged.protocol import Client, Failed

from .conftest import ALICE, BOB, FakeEngine, MakeCore, ask


async def test_busy_tells_both_figures_and_a_wait_from_the_measured_speed(
    make_core: MakeCore, engine: FakeEngine
) -> None:
    core = make_core(limits={"per_client": 2, "queue": 2})
    done = (await core.submit(ask(), ALICE)).ticket
    engine.answer()
    await done.wait()
    for _ in range(2):
        await core.submit(ask(), ALICE)
    with pytest.raises(EdgedError, match=r"2 of your requests .* 2 are allowed") as refused:
        await core.submit(ask(), ALICE)
    assert refused.value.code is ErrorCode.BUSY
    assert refused.value.retry_after_s is not None
    await core.submit(ask(), BOB)
    with pytest.raises(EdgedError, match="2 requests are waiting; 2 are allowed"):
        await core.submit(ask(), Client("carol", "socket"))


async def test_too_large_and_too_many_tokens_are_refused_with_both_figures(make_core: MakeCore) -> None:
    core = make_core(limits={"max_prompt_bytes": 10, "max_tokens": 50, "max_tokens_default": 20})
    with pytest.raises(EdgedError, match=r"11 bytes; 10 are allowed") as refused:
        await core.submit(ask("x" * 11), ALICE)
    assert refused.value.code is ErrorCode.TOO_LARGE
    with pytest.raises(EdgedError, match="max_tokens is 51; 50 are allowed"):
        await core.submit(ask("x", max_tokens=51), ALICE)


async def test_without_a_model_the_reason_is_told(core: Core, engine: FakeEngine) -> None:
    engine.is_ready, engine.state = False, "starting"
    waiting = (await core.submit(ask(), ALICE)).ticket
    engine.state, engine.supervisor.reason = "failed", "the file is missing; fetch it"
    engine.on_change()
    end = await waiting.wait()
    assert isinstance(end, Failed)
    assert (end.code, end.message) == (ErrorCode.MODEL_UNAVAILABLE, "the file is missing; fetch it")
    with pytest.raises(EdgedError, match="fetch it"):
        await core.submit(ask(), ALICE)


async def test_a_refusal_says_when_the_engine_is_tried_again(core: Core, engine: FakeEngine) -> None:
    engine.state, engine.supervisor.reason = "failed", "the engine died 5 times in a row"
    engine.supervisor.next_try_seconds = 58.5
    with pytest.raises(EdgedError, match="5 times in a row") as refused:
        await core.submit(ask(), ALICE)
    assert (refused.value.code, refused.value.retry_after_s) == (ErrorCode.MODEL_UNAVAILABLE, 58.5)


async def test_nothing_slips_in_that_is_being_prepared_when_the_doors_close(
    core: Core, engine: FakeEngine
) -> None:
    engine.gate.clear()
    submitting = asyncio.create_task(core.submit(ask(), ALICE))
    await engine.asked.wait()
    core.close()
    engine.gate.set()
    with pytest.raises(EdgedError, match="stopping"):
        await submitting
    assert core.in_hand() == []

"""How requests that are still on their way come to an end: by a stop, a cancel, a client that is gone."""

from __future__ import annotations

import asyncio

import pytest

from edged.core import Core
from edged.errors import EdgedError, ErrorCode
from edged.protocol import Done, Failed

from .conftest import ALICE, BOB, FakeEngine, ask


async def test_stop_ends_what_waits_lets_what_runs_end_and_lets_nothing_in(
    core: Core, engine: FakeEngine
) -> None:
    running = (await core.submit(ask(), ALICE)).ticket
    waiting = (await core.submit(ask(), ALICE)).ticket
    stop = asyncio.create_task(core.stop(30))
    end = await waiting.wait()
    assert isinstance(end, Failed)
    assert end.code is ErrorCode.SHUTTING_DOWN
    with pytest.raises(EdgedError, match="stopping"):
        await core.submit(ask(), BOB)
    engine.answer("the end")
    await stop
    assert isinstance(running.terminal, Done)


async def test_stop_without_a_budget_ends_what_runs(core: Core) -> None:
    running = (await core.submit(ask(), ALICE)).ticket
    await core.stop(0)
    assert isinstance(running.terminal, Failed)
    assert core.running == 0


async def test_cancel_while_the_prompt_is_prepared_gives_one_terminal_frame(
    core: Core, engine: FakeEngine
) -> None:
    engine.gate.clear()
    engine.refuse = EdgedError(ErrorCode.INVALID, "refused later")
    submitting = asyncio.create_task(core.submit(ask(id="a"), ALICE))
    await engine.asked.wait()
    ticket = core.find(ALICE, "a")
    assert ticket is not None
    repeat = await core.submit(ask(id="a"), ALICE)
    ticket.cancel()
    engine.gate.set()
    assert (await submitting).ticket is repeat.ticket is ticket
    end = await ticket.wait()
    assert isinstance(end, Done)
    assert (end.finish_reason, end.seq) == ("cancelled", 0)
    assert core.running == len(core.queue) == 0


async def test_client_that_hangs_up_while_the_prompt_is_prepared_leaves_nothing(
    core: Core, engine: FakeEngine
) -> None:
    engine.gate.clear()
    submitting = asyncio.create_task(core.submit(ask(id="a"), ALICE))
    await engine.asked.wait()
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    assert core.find(ALICE, "a") is None
    assert not list(core.registry.active())


async def test_stop_lets_nothing_slip_in_that_is_being_prepared(core: Core, engine: FakeEngine) -> None:
    engine.gate.clear()
    submitting = asyncio.create_task(core.submit(ask(id="a"), ALICE))
    await engine.asked.wait()
    await core.stop(0)
    engine.gate.set()
    with pytest.raises(EdgedError, match="stopping"):
        await submitting
    assert core.running == len(core.queue) == 0
    assert engine.started == []


async def test_stop_ends_what_waits_for_its_prompt(core: Core, engine: FakeEngine) -> None:
    engine.is_ready = False
    ticket = (await core.submit(ask(), ALICE)).ticket
    engine.gate.clear()
    engine.is_ready = True
    engine.on_change()
    await core.stop(0)
    engine.gate.set()
    for _ in range(3):
        await asyncio.sleep(0)
    assert isinstance(ticket.terminal, Failed)
    assert ticket.state == "finished"
    assert engine.started == []

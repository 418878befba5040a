"""What requests meet while memory is short: what is written down waits, the others are told to come again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from edged.core import Core, Ticket
from edged.core.shortage import SHED_TOKENS
from edged.errors import EdgedError, ErrorCode
from edged.protocol import Done, Failed

from .conftest import ALICE, BOB, FakeEngine, MakeCore, ask

REASON = "60 MB of 950 MB of memory are available"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(slots=3, context=1000)


@pytest.fixture
def core(make_core: MakeCore) -> Core:
    made = make_core()
    made.shortage.retry_after = lambda: 20.0
    return made


async def submit(core: Core, id: str, **fields: Any) -> Ticket:
    return (await core.submit(ask(id=id, **fields), ALICE)).ticket


async def written(core: Core, id: str, **fields: Any) -> Ticket:
    """Let a request in as one that is written down."""
    ticket = core.lifecycle.make_ticket(ask(id=id, **fields), BOB)
    ticket.durable = True
    await core.lifecycle.admit_soon(ticket)
    return ticket


async def low_memory(asking: Callable[[], object]) -> EdgedError:
    with pytest.raises(EdgedError) as caught:
        await asking()  # type: ignore[misc]
    assert caught.value.code is ErrorCode.LOW_MEMORY
    return caught.value


def states(*tickets: Ticket) -> list[str]:
    return [ticket.state for ticket in tickets]


def refusal_of(ticket: Ticket) -> Failed:
    assert isinstance(ticket.terminal, Failed)
    assert ticket.terminal.code is ErrorCode.LOW_MEMORY
    return ticket.terminal


async def test_who_can_not_wait_is_told_why_and_when_to_come_again(core: Core, engine: FakeEngine) -> None:
    core.shortage.shed(REASON)
    for asking in (
        lambda: core.submit(ask(), ALICE),
        lambda: core.direct.embed(["text"], ALICE),
    ):
        error = await low_memory(asking)
        assert REASON in error.message
        assert error.retry_after_s == 20
    assert core.in_hand() == []
    core.shortage.end()
    ticket = await submit(core, "a")
    assert ticket.state == "running"


async def test_what_has_begun_is_finished_one_at_a_time(core: Core, engine: FakeEngine) -> None:
    tickets = [await submit(core, id) for id in ("a", "b", "c")]
    core.shortage.shed(REASON)
    await asyncio.sleep(0)  # who is out is told by the event loop
    assert sorted(states(*tickets)) == ["put_back", "put_back", "running"]
    for _ in tickets:
        assert len(engine.running) == 1
        engine.answer()
        await asyncio.sleep(0)
    assert all(isinstance(ticket.terminal, Done) for ticket in tickets)


async def test_what_is_written_down_is_begun_one_at_a_time(core: Core, engine: FakeEngine) -> None:
    core.shortage.shed(REASON)
    tickets = [await written(core, id) for id in ("a", "b")]
    assert states(*tickets) == ["running", "queued"]
    engine.answer()
    assert states(*tickets) == ["finished", "running"]


async def test_long_answers_wait_until_there_is_memory_again(core: Core, engine: FakeEngine) -> None:
    core.shortage.shed(REASON)
    long, short = await written(core, "a", max_tokens=SHED_TOKENS + 1), await written(core, "b")
    assert states(long, short) == ["queued", "running"]
    assert short.max_tokens == SHED_TOKENS, "what does not say how long gets less than usual"
    engine.answer()
    assert states(long) == ["queued"]
    core.shortage.end()
    assert states(long) == ["running"]
    assert (await written(core, "c")).max_tokens == 256


async def test_a_long_answer_that_waits_and_is_not_written_down_is_refused_with_both_figures(
    core: Core, engine: FakeEngine
) -> None:
    for id in ("a", "b", "c"):
        await submit(core, id)
    waits = await submit(core, "d", max_tokens=SHED_TOKENS + 1)
    short = await submit(core, "e", max_tokens=SHED_TOKENS)
    core.shortage.shed(REASON)
    end = refusal_of(waits)
    assert f"max_tokens is {SHED_TOKENS + 1}; {SHED_TOKENS} are allowed" in end.message
    assert REASON in end.message
    assert (end.retry_after_s, end.param) == (20, "max_tokens")
    assert short.terminal is None


async def test_an_eviction_refuses_who_waits_and_keeps_what_is_written_down(
    core: Core, engine: FakeEngine
) -> None:
    socket, mqtt, later = await submit(core, "a"), await written(core, "b"), await written(core, "c")
    engine.say("half", engine.find("b"))
    core.shortage.shed(REASON)
    core.shortage.evict(REASON)
    assert engine.evictions == [REASON]
    assert core.phase == "degraded"
    assert REASON in refusal_of(socket).message
    assert refusal_of(socket).retry_after_s == 20
    await asyncio.sleep(0)
    assert mqtt.state == "put_back"
    more = await written(core, "d")
    assert [ticket.terminal for ticket in (mqtt, later, more)] == [None] * 3
    await low_memory(lambda: core.submit(ask(), ALICE))

    core.shortage.load_again()
    core.shortage.end()
    engine.becomes_ready()
    while len(engine.running) < 3:  # the last one's prompt was not made yet
        await asyncio.sleep(0)
    assert states(mqtt, later, more) == ["running"] * 3
    engine.say(" and half", engine.find("b"), finish="stop")
    assert isinstance(mqtt.terminal, Done)
    assert mqtt.terminal.text == "half and half"


async def test_what_waits_for_its_prompt_is_kept_or_refused_too(core: Core, engine: FakeEngine) -> None:
    engine.gate.clear()
    ticket = core.lifecycle.make_ticket(ask(id="a"), BOB)
    ticket.durable = True
    admission = core.lifecycle.admit_soon(ticket)
    await engine.asked.wait()
    core.shortage.evict(REASON)
    assert ticket.terminal is None
    engine.gate.set()
    await admission
    assert states(ticket) == ["queued"]
    core.shortage.load_again()
    core.shortage.end()
    engine.becomes_ready()
    await engine.begun()
    assert states(ticket) == ["running"]


async def test_a_model_that_does_not_fit_now_is_as_no_memory(core: Core, engine: FakeEngine) -> None:
    """The watch finds memory enough, but not for the model: its plan says so."""
    engine.is_ready = False
    engine.state, engine.supervisor.reason = "starting", None
    socket, mqtt = await submit(core, "a"), await written(core, "b")
    engine.state, engine.supervisor.reason = "low_memory", "the model needs 90 MB"
    engine.supervisor.next_try_seconds = 5.0
    engine.on_change()
    assert "the model needs 90 MB" in refusal_of(socket).message
    assert mqtt.terminal is None
    error = await low_memory(lambda: core.submit(ask(), ALICE))
    assert error.retry_after_s == 5
    engine.becomes_ready()
    await engine.begun()
    assert mqtt.state == "running"

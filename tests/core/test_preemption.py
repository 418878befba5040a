"""Who gives way to whom; and what becomes of a request that was put back, to its end."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edged.core import Core, Ticket
from edged.core.preemption import MOST_TIMES, gives_way, surplus
from edged.core.turn import Turn
from edged.errors import ErrorCode
from edged.protocol import Client, Done, Failed

from .conftest import ALICE, BOB, FakeEngine, MakeCore, ask, contents, frames_of


def turn(level: float, begun: float = 0.0, **fields: Any) -> Turn:
    """Return a turn that is computed."""
    ticket = cast(Ticket, SimpleNamespace(generation=object()))
    return Turn(ticket, level=level, begun=begun, **fields)


async def begin(core: Core, id: str, client: Client = ALICE, **fields: Any) -> Ticket:
    """Let a request in, and what it causes happen."""
    ticket = (await core.submit(ask(fields.pop("prompt", "hello there"), id=id, **fields), client)).ticket
    await settle()
    return ticket


async def settle() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


# --- the decision ---


def test_the_lowest_gives_way_and_of_the_lowest_what_was_begun_last() -> None:
    first, last, normal = turn(0, begun=1), turn(0, begun=2), turn(1, begun=3)
    assert gives_way([first, normal, last], level=2) is last
    assert gives_way([normal], level=2) is normal


def test_nobody_gives_way_to_an_equal() -> None:
    assert gives_way([turn(1), turn(2)], level=1) is None


def test_nobody_gives_way_for_ever() -> None:
    assert gives_way([turn(0, times_put_back=MOST_TIMES)], level=2) is None
    assert gives_way([turn(0, times_put_back=MOST_TIMES - 1)], level=2) is not None


def test_what_is_leaving_or_has_no_prompt_yet_is_not_told_to_leave() -> None:
    unprepared = turn(0)
    cast(Any, unprepared.ticket).generation = None
    assert gives_way([unprepared, turn(0, is_leaving=True)], level=2) is None


def test_beyond_a_bound_the_lowest_leave_however_often_they_did() -> None:
    high, low, worn = turn(2, begun=3), turn(0, begun=1), turn(0, begun=2, times_put_back=MOST_TIMES)
    assert surplus([high, low, worn], 1) == [worn, low]
    assert surplus([high, low, turn(0, is_leaving=True)], 2) == []
    assert surplus([high, low, worn], 0) == [worn, low, high]


# --- the request ---


async def test_low_makes_room_for_high_and_goes_on_as_if_nothing_had_happened(
    core: Core, engine: FakeEngine
) -> None:
    low = await begin(core, "low", priority="low")
    engine.say("one")
    generation = engine.running[0]
    high = await begin(core, "high", priority="high")
    assert engine.started == ["low", "high"]
    assert (low.state, high.state) == ("put_back", "running")
    assert list(core.dispatcher.running) == [high]
    assert list(core.dispatcher.put_back) == [low]
    engine.answer()
    assert engine.running == [generation]  # with what it has produced
    assert low.state == "running"
    engine.answer(" two")
    frames = await frames_of(low)
    assert [f.type for f in frames] == ["accepted", "chunk", "done"]
    assert [f.seq for f in frames] == [0, 1, 2]
    assert {f.attempt for f in frames} == {1}
    end = frames[-1]
    assert isinstance(end, Done)
    assert (end.text, end.usage.completion_tokens) == ("one two", 2)
    assert core.dispatcher.put_back_total == 1
    assert core.running == core.dispatcher.waiting == 0


async def test_it_makes_room_each_time(core: Core, engine: FakeEngine) -> None:
    await begin(core, "low", priority="low")
    for number in range(MOST_TIMES + 2):
        await begin(core, f"high{number}", priority="high")
        engine.answer()
        await settle()
    assert core.dispatcher.put_back_total == MOST_TIMES
    assert engine.started.count("low") == MOST_TIMES + 1


async def test_equals_wait(core: Core, engine: FakeEngine) -> None:
    await begin(core, "running", priority="high")
    await begin(core, "waiting", BOB, priority="high")
    assert engine.started == ["running"]


async def test_one_stream_is_given_up_for_one_that_waits(make_core: MakeCore, engine: FakeEngine) -> None:
    engine.plan.load.sequences = 3
    engine.lets_go = False
    core = make_core()
    for name in ("a", "b", "c"):
        await begin(core, name, priority="low")
    await begin(core, "high", priority="high")
    await begin(core, "normal")
    await begin(core, "equal", priority="low")
    assert len(engine.leaving) == 2
    engine.let_go()
    await settle()
    assert engine.started == ["a", "b", "c", "high", "normal"]


async def test_what_is_put_back_is_next_of_its_priority(core: Core, engine: FakeEngine) -> None:
    for name in ("first", "second"):
        await begin(core, name, priority="low")
    await begin(core, "high", priority="high")
    while engine.running:
        engine.answer()
    assert engine.started == ["first", "high", "first", "second"]


async def test_of_a_session_the_one_put_back_goes_on_before_the_next(core: Core, engine: FakeEngine) -> None:
    await begin(core, "one", prompt="q1", session="s", priority="low")
    await begin(core, "two", prompt="q2", session="s", priority="high")
    assert engine.started == ["one"]  # the next turn of a conversation can't go before it
    await begin(core, "high", BOB, priority="high")
    engine.answer("a")
    await settle()
    engine.answer("a1")
    await settle()
    assert engine.started == ["one", "high", "one", "two"]
    assert contents(engine.prepared[-1]) == ["q1", "a1", "q2"]


async def test_a_prompt_in_preparation_gives_way_once_it_is_prepared(core: Core, engine: FakeEngine) -> None:
    engine.gate.clear()
    engine.is_ready = False
    await begin(core, "low", priority="low")
    engine.is_ready = True
    engine.on_change()
    engine.is_ready = False
    await begin(core, "high", priority="high")
    engine.is_ready = True
    engine.on_change()
    assert engine.started == []
    engine.gate.set()
    for _ in range(3):
        await settle()
    assert engine.started == ["low", "high"]


async def test_ttl_does_not_count_for_what_has_begun(core: Core, engine: FakeEngine) -> None:
    low = await begin(core, "low", priority="low", ttl_s=0.01)
    await begin(core, "high", priority="high")
    core.deadlines._look(low)
    assert low.terminal is None


async def test_put_back_requests_can_be_cancelled(core: Core, engine: FakeEngine) -> None:
    low = await begin(core, "low", priority="low", session="s")
    engine.say("one")
    high = await begin(core, "high", priority="high")
    low.cancel()
    end = await low.wait()
    assert isinstance(end, Done)
    assert (end.finish_reason, end.text) == ("cancelled", "one")
    assert core.dispatcher.waiting == 0
    assert not core.dispatcher.put_back
    assert len(core.sessions) == 0
    engine.answer()
    assert isinstance(await high.wait(), Done)
    assert engine.running == []


async def test_cancel_between_leaving_and_waiting_is_not_lost(core: Core, engine: FakeEngine) -> None:
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, fault: faults.append(fault))
    engine.lets_go = False
    low = await begin(core, "low", priority="low")
    await begin(core, "high", priority="high")
    engine.let_go()
    low.cancel()
    await settle()
    assert faults == []
    assert low.state == "finished"
    assert engine.started == ["low", "high"]


async def test_what_ends_while_it_is_to_leave_has_ended(core: Core, engine: FakeEngine) -> None:
    engine.lets_go = False
    low = await begin(core, "low", priority="low")
    await begin(core, "high", priority="high")
    engine.answer("done")
    await settle()
    assert isinstance(low.terminal, Done)
    assert engine.started == ["low", "high"]
    assert core.dispatcher.put_back_total == 0


async def test_another_model_can_not_go_on_with_it(core: Core, engine: FakeEngine) -> None:
    low = await begin(core, "low", priority="low")
    await begin(core, "high", priority="high")
    engine.plan.key = "another"
    engine.on_change()
    engine.answer()
    await settle()
    assert isinstance(low.terminal, Failed)
    assert low.terminal.code is ErrorCode.MODEL_UNAVAILABLE
    assert core.running == core.dispatcher.waiting == 0


async def test_a_stop_lets_it_go_on_and_begins_nothing_else(core: Core, engine: FakeEngine) -> None:
    low = await begin(core, "low", priority="low")
    new = await begin(core, "new", BOB, priority="low")
    await begin(core, "high", priority="high")
    stopping = asyncio.create_task(core.stop(30))
    await settle()
    engine.answer()
    engine.answer("the end")
    await stopping
    assert isinstance(low.terminal, Done)
    assert isinstance(new.terminal, Failed)
    assert engine.started == ["low", "high", "low"]


async def test_a_stop_without_a_budget_ends_it(core: Core) -> None:
    low = await begin(core, "low", priority="low")
    await begin(core, "high", priority="high")
    await core.stop(0)
    assert isinstance(low.terminal, Failed)
    assert not core.dispatcher.put_back


# --- the bound ---


@pytest.mark.parametrize("most", [0, 1, 2])
async def test_a_bound_puts_back_what_is_too_much_until_it_is_lifted(
    make_core: MakeCore, engine: FakeEngine, most: int
) -> None:
    engine.plan.load.sequences = 3
    core = make_core()
    names = ["high", "normal", "low"]
    tickets = [await begin(core, name, priority=name) for name in names]
    core.dispatcher.limit(most)
    await settle()
    assert [t.id for t in core.dispatcher.running] == names[:most]
    core.dispatcher.limit(None)
    await settle()
    assert len(engine.running) == 3
    while engine.running:
        engine.answer()
    assert all(isinstance(t.terminal, Done) for t in tickets)


async def test_urgent_requests_go_first_within_a_bound(make_core: MakeCore, engine: FakeEngine) -> None:
    engine.plan.load.sequences = 3
    core = make_core()
    core.dispatcher.limit(1)
    for name in ("low", "normal", "high"):
        await begin(core, name, priority=name)
    assert [t.id for t in core.dispatcher.running] == ["high"]
    while engine.running:
        engine.answer()
    assert engine.started == ["low", "normal", "high", "normal", "low"]

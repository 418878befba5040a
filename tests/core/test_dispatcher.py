"""Who runs when: between clients, users, priorities and sessions, and when the engine comes and goes."""

from __future__ import annotations

import asyncio

from edged.core import Core
from edged.protocol import Accepted, Client

from .conftest import ALICE, BOB, FakeEngine, MakeCore, ask, contents, frames_of


async def test_position_in_the_queue_is_told(core: Core) -> None:
    tickets = [(await core.submit(ask(), ALICE)).ticket for _ in range(3)]
    accepted = [await t.next_frame() for t in tickets]
    assert [a.queue_position for a in accepted if isinstance(a, Accepted)] == [0, 0, 1]


async def test_clients_take_turns_whoever_came_first(core: Core, engine: FakeEngine) -> None:
    for i in range(5):
        await core.submit(ask(id=f"a{i}"), ALICE)
    await core.submit(ask(id="b0"), BOB)
    while engine.running:
        engine.answer()
    assert engine.started.index("b0") <= 2


async def test_users_of_one_client_share_its_turns(core: Core, engine: FakeEngine) -> None:
    for i in range(3):
        await core.submit(ask(id=f"x{i}"), Client("alice", "socket", "x"))
    await core.submit(ask(id="y0"), Client("alice", "socket", "y"))
    await core.submit(ask(id="b0"), BOB)
    while engine.running:
        engine.answer()
    assert engine.started.index("b0") <= 2
    assert engine.started.index("y0") < engine.started.index("x2")


async def test_high_priority_goes_first(core: Core, engine: FakeEngine) -> None:
    for name, priority in (("running", "normal"), ("low", "low"), ("normal", "normal"), ("high", "high")):
        await core.submit(ask(id=name, priority=priority), ALICE)
    while engine.running:
        engine.answer()
    assert engine.started == ["running", "high", "running", "normal", "low"]


async def test_requests_wait_for_an_engine_that_is_starting(core: Core, engine: FakeEngine) -> None:
    engine.is_ready = False
    ticket = (await core.submit(ask(), ALICE)).ticket
    assert (await ticket.next_frame()).type == "accepted"
    engine.is_ready = True
    engine.on_change()
    await asyncio.sleep(0)
    engine.answer("here")
    assert [f.type for f in await frames_of(ticket)] == ["chunk", "done"]


async def test_another_model_gets_the_waiting_prompts_anew(core: Core, engine: FakeEngine) -> None:
    await core.submit(ask(id="running"), ALICE)
    await core.submit(ask("one two three", id="waiting"), ALICE)
    for key in ("model", "another"):
        engine.plan.key = key
        engine.on_change()
    before = len(engine.prepared)
    engine.answer()
    await engine.begun()
    assert len(engine.prepared) == before + 1


async def test_requests_of_one_session_run_one_after_the_other(
    make_core: MakeCore, engine: FakeEngine
) -> None:
    engine.plan.load.sequences = 4
    core = make_core()
    await core.submit(ask("q1", session="s", id="one"), ALICE)
    await core.submit(ask("q2", session="s", id="two"), ALICE)
    await core.submit(ask("q3", id="other"), ALICE)
    for _ in range(3):
        await asyncio.sleep(0)
    assert sorted(engine.started) == ["one", "other"]
    engine.answer("a1") if engine.started[0] == "one" else engine.say("a1", engine.running[1], finish="stop")
    for _ in range(3):
        await asyncio.sleep(0)
    assert engine.started[-1] == "two"
    assert contents(engine.prepared[-1]) == ["q1", "a1", "q2"]

"""What a conversation keeps, of whom, and for how long."""

from __future__ import annotations

import asyncio

from edged.core import Core

from .conftest import ALICE, BOB, FakeEngine, MakeCore, ask, contents, say


async def test_session_keeps_turns_and_the_newest_system_text(core: Core, engine: FakeEngine) -> None:
    await say(core, engine, "q1", "a1", system="be brief")
    await say(core, engine, "q2", "a2")
    assert contents(engine.prepared[-1]) == ["be brief", "q1", "a1", "q2"]
    await say(core, engine, "q3", "a3", system="be long")
    assert contents(engine.prepared[-1]) == ["be long", "q1", "a1", "q2", "a2", "q3"]


async def test_sessions_are_a_clients_own(core: Core, engine: FakeEngine) -> None:
    await say(core, engine, "q1", "a1")
    await core.submit(ask("q2", session="s"), BOB)
    await engine.begun()
    assert contents(engine.prepared[-1]) == ["q2"]


async def test_turn_that_was_cancelled_leaves_no_trace(core: Core, engine: FakeEngine) -> None:
    await say(core, engine, "q1", "a1", system="be brief")
    ticket = (await core.submit(ask("q2", session="s", system="be rude"), ALICE)).ticket
    await engine.begun()
    engine.say("half")
    ticket.cancel()
    await say(core, engine, "q3", "a3")
    assert contents(engine.prepared[-1]) == ["be brief", "q1", "a1", "q3"]


async def test_sessions_are_bounded_in_turns_bytes_and_number(
    make_core: MakeCore, engine: FakeEngine
) -> None:
    core = make_core(sessions={"turns": 2, "bytes": 40, "count": 2, "idle_seconds": 10})
    for i in range(4):
        await say(core, engine, f"q{i}", f"a{i}")
    assert contents(engine.prepared[-1]) == ["q1", "a1", "q2", "a2", "q3"]
    await say(core, engine, "x" * 30, "y" * 8)
    await say(core, engine, "z", "z")
    assert contents(engine.prepared[-1]) == ["x" * 30, "y" * 8, "z"]
    for name in ("t", "u", "v"):
        await core.submit(ask("q", session=name), ALICE)
        await engine.begun()
        engine.answer()
    assert len(core.sessions) == 2
    core.sessions._clock = lambda: asyncio.get_running_loop().time() + 11
    await say(core, engine, "new", "new")
    assert len(core.sessions) == 1

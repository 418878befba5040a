"""Whatever happens to requests that give way to each other: none is lost or ends twice, nothing is left."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from edged.core import Core, Ticket
from edged.engine.client import Engine
from edged.protocol import Client
from edged.settings import Settings

from .conftest import FakeEngine, ask

_ASKS = st.tuples(
    st.just("ask"),
    st.sampled_from(["low", "normal", "high"]),
    st.sampled_from("ab"),
    st.sampled_from([None, None, "s"]),
)
_WHICH = st.integers(0, 9)
_DEEDS = st.one_of(
    _ASKS,
    _ASKS,
    st.tuples(st.just("say"), _WHICH),
    st.tuples(st.just("end"), _WHICH),
    st.tuples(st.just("cancel"), _WHICH),
    st.tuples(st.just("limit"), st.sampled_from([0, 1, 2, None])),
    st.tuples(st.just("let_go")),
    st.tuples(st.just("turn")),
    st.tuples(st.just("engine"), st.booleans()),
)


class World:
    """A core, and all that was asked of it."""

    def __init__(self, slots: int) -> None:
        self.engine = FakeEngine(slots)
        self.engine.lets_go = False
        where = Path("/nowhere")
        limits = {"per_client": 100, "queue": 100}
        chosen = Settings(device_id="d", state_dir=where, runtime_dir=where, limits=cast(Any, limits))
        self.core = Core(chosen, cast(Engine, self.engine))
        self.slots = slots
        self.tickets: list[Ticket] = []

    async def do(self, deed: str, *how: Any) -> None:
        engine = self.engine
        match deed:
            case "ask":
                priority, client, session = how
                request = ask("some words", priority=priority, **({"session": session} if session else {}))
                self.tickets.append((await self.core.submit(request, Client(client, "socket"))).ticket)
            case "say" if engine.running:
                engine.say("x", engine.running[how[0] % len(engine.running)])
            case "end" if engine.running:
                engine.say("x", engine.running[how[0] % len(engine.running)], finish="stop")
            case "cancel" if self.tickets:
                self.tickets[how[0] % len(self.tickets)].cancel()
            case "limit":
                self.core.dispatcher.limit(how[0])
            case "let_go":
                engine.let_go()
            case "turn":
                await asyncio.sleep(0)
            case "engine":
                engine.is_ready = how[0]
                engine.on_change()
        self.check()

    def check(self) -> None:
        dispatcher = self.core.dispatcher
        assert len(dispatcher.running) <= self.slots
        assert len(self.engine.running) <= self.slots
        assert not set(dispatcher.running) & set(dispatcher.put_back)
        assert set(dispatcher.put_back) <= set(self.core.queue)
        for ticket in self.tickets:
            in_hand = ticket in dispatcher.running or ticket in self.core.queue
            assert in_hand == (ticket.terminal is None), ticket.state

    async def finish(self) -> None:
        """Let everything come to its end."""
        await self.do("engine", True)
        await self.do("limit", None)
        for _ in range(50 * (1 + len(self.tickets))):
            await self.do("let_go")
            await self.do("turn")
            await self.do("end", 0)
            if all(ticket.terminal for ticket in self.tickets):
                break


@settings(max_examples=60)
@given(st.integers(1, 3), st.lists(_DEEDS, max_size=40))
def test_none_is_lost_and_nothing_is_left(slots: int, deeds: list[tuple[Any, ...]]) -> None:
    faults: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, fault: faults.append(fault))
        world = World(slots)
        for deed in deeds:
            await world.do(*deed)
        await world.finish()
        assert all(ticket.terminal for ticket in world.tickets)
        core = world.core
        assert core.running == core.dispatcher.waiting == len(core.dispatcher.put_back) == 0
        assert world.engine.running == []
        assert not core.queue._parties
        ended = core.outcomes.done + core.outcomes.failed + core.outcomes.cancelled
        assert ended == len(world.tickets) == core.outcomes.accepted

    asyncio.run(run())
    assert faults == []

"""A device is in its pool while it can answer, and only then; the broker is a real one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import cast

import pytest

from edged.core import Core
from edged.frontends.mqtt import pool
from edged.frontends.mqtt.link import Broker, Link, live
from edged.frontends.mqtt.pool import Pool
from edged.frontends.mqtt.topics import Topics
from tests.brokers import Mosquitto
from tests.frontends.mqtt.conftest import FakeClock, until
from tests.scripted_broker import SUBSCRIBE, UNSUBACK, UNSUBSCRIBE, Peer, ScriptedBroker, packet, suback


class Member:
    """One device of a pool."""

    def __init__(self, port: int) -> None:
        self.core = SimpleNamespace(ready=True)
        self.pool = Pool(
            "p",
            core=cast(Core, self.core),
            broker=Broker("127.0.0.1", port),
            topics=Topics("edged", "d"),
            clock=FakeClock(),  # type: ignore[arg-type]
            on_message=lambda message: message.acknowledge(),
        )
        self.task = asyncio.create_task(self.pool.run())

    async def end(self) -> None:
        await self.pool.stop(1.5)
        self.task.cancel()
        await asyncio.wait([self.task])


@pytest.fixture
async def member(mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Member]:
    monkeypatch.setattr(pool, "CHECK_SECONDS", 0.01)
    member = Member(mosquitto.port)
    await until(lambda: member.pool.joined or member.task.done())
    yield member
    await member.end()


async def test_a_device_is_a_member_while_it_is_ready(member: Member) -> None:
    member.core.ready = False
    await until(lambda: not member.pool.joined)
    member.core.ready = True
    await until(lambda: member.pool.joined)


async def test_a_fault_does_not_end_the_membership(member: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = asyncio.Event()

    def fail(*_: object) -> None:
        tried.set()
        raise OSError("a fault")

    with monkeypatch.context() as fault:
        fault.setattr(Link, "unsubscribe", fail)
        member.core.ready = False
        await asyncio.wait_for(tried.wait(), 20)
        await asyncio.sleep(0)
        assert not member.task.done()
    member.core.ready = True
    await until(lambda: member.pool.joined or member.task.done())
    assert not member.task.done()


async def test_a_broker_that_hangs_does_not_hold_up_who_leaves(
    member: Member, mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session ends with its connection anyway."""
    monkeypatch.setattr(live, "SUBSCRIBE_SECONDS", 3600.0)
    mosquitto.pause()
    try:
        await asyncio.wait_for(member.pool.leave(), 20)
        assert not member.pool.joined
    finally:
        mosquitto.resume()


async def test_a_broker_that_grants_half_is_left_and_asked_again_after_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half a member would be handed prompts while it says that it is none."""
    asked_again = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        asked = await peer.expect(SUBSCRIBE)
        await peer.send(suback(asked.mid, 1, 0x87))
        left = await peer.expect(UNSUBSCRIBE)
        await peer.send(packet(UNSUBACK, 0, left.mid.to_bytes(2, "big") + b"\0\0"))
        asked = await peer.expect(SUBSCRIBE)
        asked_again.set()
        await peer.send(suback(asked.mid, 1, 1))
        await peer.serve()

    monkeypatch.setattr(pool, "CHECK_SECONDS", 0.01)
    async with ScriptedBroker(script) as broker:
        member = Member(broker.port)
        try:
            (left,) = await broker.received(UNSUBSCRIBE)
            assert member.pool.status()["problem"] is not None
            for _ in range(5):
                await member.pool._settle()
            assert not asked_again.is_set()
            monkeypatch.setattr(pool, "time", SimpleNamespace(monotonic=lambda: math.inf))
            await until(lambda: member.pool.joined or member.task.done())
        finally:
            await member.end()
    first, second = broker.of(SUBSCRIBE)
    assert first.body[3:] == second.body[3:]
    assert left.body[5:] in first.body

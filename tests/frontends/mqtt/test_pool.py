"""A device is in its pool while it can answer, and only then; the broker is a real one."""

from __future__ import annotations

import asyncio
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


class Member:
    """One device of a pool."""

    def __init__(self, broker: Mosquitto) -> None:
        self.core = SimpleNamespace(ready=True)
        self.pool = Pool(
            "p",
            core=cast(Core, self.core),
            broker=Broker("127.0.0.1", broker.port),
            topics=Topics("edged", "d"),
            clock=FakeClock(),  # type: ignore[arg-type]
            on_message=lambda message: message.acknowledge(),
        )
        self.task = asyncio.create_task(self.pool.run())


@pytest.fixture
async def member(mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Member]:
    monkeypatch.setattr(pool, "CHECK_SECONDS", 0.01)
    member = Member(mosquitto)
    await until(lambda: member.pool.joined or member.task.done())
    yield member
    await member.pool.stop(1.5)
    member.task.cancel()
    await asyncio.wait([member.task])


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

"""The MQTT frontend's parts on a bench: a real core and journal, engine and line driven by hand.

The fake engine is that of tests/core; the fake line has the interface of edged.frontends.mqtt.link.Link.
The real ones are under the same frontend in tests/e2e.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from edged.clock import Clock
from edged.core import Core
from edged.core.durable import Durable
from edged.core.events import Event
from edged.core.journal import Journal
from edged.engine.client import Engine
from edged.frontends.mqtt.addresses import ReplyRule
from edged.frontends.mqtt.asks import Asks
from edged.frontends.mqtt.link import Link
from edged.frontends.mqtt.message import ACKNOWLEDGED, Message, Outcome, Publication
from edged.frontends.mqtt.outbox import Outbox
from edged.frontends.mqtt.topics import Topics
from edged.settings import Settings
from tests.core.conftest import FakeEngine

BASE = "edged/v1/d/"


class FakeLine:
    """Takes publications and acknowledges them when told to.

    Attributes:
        sent: everything that was published, in order.
        open: whether chunks have room.
        connection: what the broker grants.
    """

    def __init__(self) -> None:
        self.sent: list[Publication] = []
        self.open = asyncio.Event()
        self.open.set()
        self.connection: Any = SimpleNamespace(maximum_packet_size=None)
        self.acknowledging = True
        self.withdrawn: list[Publication] = []
        self._changed = asyncio.Event()

    @property
    def has_room(self) -> bool:
        return self.open.is_set()

    async def room(self) -> None:
        await self.open.wait()

    def publish(self, publication: Publication) -> None:
        self.sent.append(publication)
        self._changed.set()
        if self.acknowledging:
            asyncio.get_running_loop().call_soon(publication.on_outcome, ACKNOWLEDGED)

    def withdraw(self, publication: Publication) -> None:
        self.withdrawn.append(publication)

    async def until(self, count: int) -> list[dict[str, Any]]:
        """Wait until so many messages were published; return the fields of all."""
        while len(self.sent) < count:
            self._changed.clear()
            await self._changed.wait()
        return self.frames

    async def until_type(self, type: str) -> dict[str, Any]:
        """Wait for a frame of a type and return it."""
        count = 0
        while not (found := [frame for frame in self.frames if frame.get("type") == type]):
            count = max(count, len(self.sent)) + 1
            await self.until(count)
        return found[-1]

    @property
    def frames(self) -> list[dict[str, Any]]:
        """The fields of what was published."""
        return [json.loads(publication.payload) for publication in self.sent]


class Bench:
    """One daemon's core, journal and MQTT parts.

    Attributes:
        core: the core.
        engine: its engine.
        line: to the broker.
        asks: what takes prompts.
        events: what was told.
    """

    def __init__(self, core: Core, engine: FakeEngine, line: FakeLine) -> None:
        self.core, self.engine, self.line = core, engine, line
        self.events: list[Event] = []
        core.events.listeners.append(self.events.append)
        topics = Topics(core.settings.mqtt.root, core.settings.device_id)
        self.outbox = Outbox(
            core=core, link=cast(Link, line), topics=topics, clock=core.clock, keep_seconds=lambda: 3600
        )
        self.asks = Asks(
            core=core,
            topics=topics,
            outbox=self.outbox,
            rule=ReplyRule(core.settings.mqtt.reply_prefixes, topics),
            table=lambda: core.settings.mqtt,
        )
        self._topics = topics

    async def ask(
        self, payload: str | bytes | dict[str, Any], topic: str = "ask/phone", **fields: Any
    ) -> Acks:
        """Deliver a prompt; returns when it was dealt with."""
        if isinstance(payload, dict):
            payload = json.dumps(payload)
        acks = Acks()
        data = payload.encode() if isinstance(payload, str) else payload
        message = Message(BASE + topic, data, _acknowledge=acks.add, **fields)
        arrival = self._topics.read(message.topic)
        assert arrival is not None
        await self.asks.ask(message, arrival)
        return acks

    def cancel(self, payload: str, client: str = "phone") -> None:
        """Deliver a wish to cancel."""
        message = Message(f"{BASE}cancel/{client}", payload.encode())
        arrival = self._topics.read(message.topic)
        assert arrival is not None
        self.asks.cancel(message, arrival)


class Acks:
    """Acknowledgements of one message."""

    def __init__(self) -> None:
        self.count = 0
        self._came = asyncio.Event()

    def add(self) -> None:
        self.count += 1
        self._came.set()

    async def wait(self) -> None:
        """Wait for the first."""
        await self._came.wait()


@asynccontextmanager
async def daemon(directory: Path, *, slots: int = 1, **tables: Any) -> AsyncIterator[Bench]:
    """Live one daemon's life on a directory; it ends as if the power had gone."""
    settings = Settings(device_id="d", state_dir=directory, runtime_dir=directory, **tables)
    engine = FakeEngine(slots)
    clock = Clock()
    journal = Journal(directory, settings=settings.journal, clock=clock)
    durable = Durable(journal, clock)
    core = Core(settings, cast(Engine, engine), durable, clock=clock)
    await durable.open()
    bench = Bench(core, engine, FakeLine())
    try:
        yield bench
    finally:
        left = [replier.task for replier in bench.asks._repliers.values()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await journal.close()


UNHEARD = Outcome("unheard")

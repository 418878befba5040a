"""Links under test, with what their owner would be told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pytest

from edged.frontends.mqtt.link import Broker, Connection, Link, State, Subscription
from edged.frontends.mqtt.message import Message, Outcome, Publication

WAIT_SECONDS = 20.0


@dataclass
class FakeClock:
    """A clock that is right, or not."""

    synchronised: bool = True


@dataclass
class Owner:
    """Has a link and keeps what it is told.

    Attributes:
        subscriptions: what it asks for on each connection.
        faults: what came of that.
    """

    link: Link = field(init=False)
    clock: FakeClock = field(default_factory=FakeClock)
    subscriptions: Sequence[Subscription | tuple[str, int]] = ()
    connections: asyncio.Queue[Connection] = field(default_factory=asyncio.Queue)
    messages: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)
    faults: dict[str, str | None] = field(default_factory=dict)
    duplicates: int = 0
    acknowledging: bool = True
    task: asyncio.Task[None] = field(init=False)

    async def on_connected(self, connection: Connection) -> None:
        if self.subscriptions:
            self.faults = await self.link.subscribe(self.subscriptions)
        self.connections.put_nowait(connection)

    def on_message(self, message: Message) -> None:
        self.messages.put_nowait(message)
        if self.acknowledging:
            message.acknowledge()

    def on_duplicate(self) -> None:
        self.duplicates += 1

    async def connected(self) -> Connection:
        """Wait for the next connection, with its subscriptions."""
        return await asyncio.wait_for(self.connections.get(), WAIT_SECONDS)

    async def message(self) -> Message:
        """Wait for the next message."""
        return await asyncio.wait_for(self.messages.get(), WAIT_SECONDS)

    async def in_state(self, *states: State) -> None:
        """Wait until the link is in one of the states."""
        await until(lambda: self.link.state in states)

    def hurry(self) -> None:
        """End a pause between two tries."""
        self.link._hurry.set()

    async def publish(self, topic: str, payload: bytes = b"", **more: Any) -> Outcome:
        """Publish and wait for the outcome."""
        return await asyncio.wait_for(self.publish_soon(topic, payload, **more), WAIT_SECONDS)

    def publish_soon(self, topic: str, payload: bytes = b"", **more: Any) -> asyncio.Future[Outcome]:
        """Publish; the future has the outcome."""
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self.link.publish(Publication(topic, payload, **more, on_outcome=outcome.set_result))
        return outcome


async def until(holds: Callable[[], object]) -> None:
    """Wait until something holds that tells nobody when it does."""
    async with asyncio.timeout(WAIT_SECONDS):
        while not holds():
            await asyncio.sleep(0.005)


class MakeLink(Protocol):
    """Makes an owner with a link that runs; takes what `Link` takes, and the port of a local broker."""

    def __call__(self, broker: Broker | int, **more: Any) -> Owner: ...


@pytest.fixture
async def make_link() -> AsyncIterator[MakeLink]:
    made: list[Owner] = []

    def make(broker: Broker | int, **more: Any) -> Owner:
        owner = Owner(subscriptions=more.pop("subscriptions", ()), clock=more.pop("clock", FakeClock()))
        options: dict[str, Any] = {
            "client_id": f"link-{id(owner):x}",
            "clean_start": False,
            "session_expiry_seconds": 60,
            "will": lambda _: None,
        }
        owner.link = Link(
            Broker("127.0.0.1", broker) if isinstance(broker, int) else broker,
            **(options | more),
            on_connected=owner.on_connected,
            on_message=owner.on_message,
            on_duplicate=owner.on_duplicate,
            clock=owner.clock,
        )
        owner.task = asyncio.create_task(owner.link.run())
        made.append(owner)
        return owner

    yield make
    for owner in made:
        await owner.link.stop((), 1.5)
        await owner.task

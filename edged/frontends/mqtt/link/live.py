"""One connection as the event loop sees it: from the try to make it to its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import paho.mqtt.client as paho
import structlog

from edged.frontends.mqtt.link import faults, packets, reasons
from edged.frontends.mqtt.link.box import Box
from edged.frontends.mqtt.link.client import Plan
from edged.frontends.mqtt.link.connection import Connection
from edged.frontends.mqtt.link.ending import Ending, Why
from edged.frontends.mqtt.link.feed import Feed
from edged.frontends.mqtt.link.inbox import Inbox
from edged.frontends.mqtt.link.receipts import Receipts
from edged.frontends.mqtt.link.stream import Head
from edged.frontends.mqtt.link.subscription import Subscription
from edged.frontends.mqtt.message import Message
from edged.progress import Progress

_log = structlog.get_logger(__name__)

SUBSCRIBE_SECONDS = 10.0


class Hooks(Protocol):
    """Who is told of what matters beyond the connection."""

    def on_connected(self, connection: Connection) -> None:
        """Note the connection."""

    async def greet(self, connection: Connection) -> None:
        """Begin; cancelled when the connection ends first."""

    def on_message(self, message: Message) -> None:
        """Take a message."""

    def on_unusable(self) -> None:
        """Count a message that is too large or that nobody can read."""


class Live:
    """A connection, or the try to make one; the object is the generation.

    Attributes:
        connection: what the broker granted; None before it did.
        ended: how it ended, once it has.
    """

    def __init__(self, plan: Plan, *, feed: Feed, hooks: Hooks) -> None:
        loop = asyncio.get_running_loop()
        self.connection: Connection | None = None
        self.ended: asyncio.Future[Ending] = loop.create_future()
        self._plan = plan
        self._feed = feed
        self._hooks = hooks
        self._inbox = Inbox(loop)
        self._box = Box(plan, self, self._inbox)
        self._receipts = Receipts(self._box.acknowledge)
        self._questions: dict[int, asyncio.Future[list[int]]] = {}
        self._serial = 0
        self._began = 0.0
        self._greeting: asyncio.Task[None] | None = None

    @property
    def lived(self) -> float:
        """How long the connection has lasted, in seconds; 0 before the broker's consent."""
        return time.monotonic() - self._began if self.connection else 0.0

    @property
    def progress(self) -> Progress:
        """The steps of the connection's thread."""
        return self._box.progress

    @property
    def dropped(self) -> int:
        """How many messages of QoS 0 there was no room for."""
        return self._inbox.dropped

    def start(self) -> None:
        """Try to connect."""
        self._box.start()

    def leave(self, *, will: bool) -> None:
        """Send what is on its way and disconnect; `ended` follows."""
        if self.connection is not None:
            self._box.leave(will=will)
        else:
            self._box.abort()

    def close(self, why: Why = "left") -> None:
        """End it here and now, whatever the thread does; a second call does nothing."""
        self._inbox.close()
        self._box.abort()
        self._over(Ending(why, answered=self.connection is not None))

    def join(self, seconds: float) -> bool:
        """Wait for the thread; False when it is still busy. Blocks."""
        return self._box.join(seconds)

    async def drained(self) -> None:
        """Wait until nothing is on its way any more, or until the connection ends."""
        drained = asyncio.create_task(self._feed.drained())
        ways: tuple[asyncio.Future[Any], ...] = (drained, self.ended)
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            drained.cancel()

    async def subscribe(self, subscriptions: Sequence[Subscription]) -> dict[str, str | None]:
        """Return for each filter what is wrong with it."""
        if not subscriptions:
            return {}
        filters = [one.filter for one in subscriptions]
        try:
            codes = await self._ask(lambda serial: self._box.subscribe(serial, subscriptions))
        except TimeoutError:
            return dict.fromkeys(filters, faults.NO_ANSWER)
        if len(codes) != len(filters):
            return dict.fromkeys(filters, faults.CONNECTION_GONE)
        return {
            filter: faults.subscription(code) if code >= reasons.FIRST_FAILURE else None
            for filter, code in zip(filters, codes, strict=True)
        }

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Wait for the broker's answer, or for the connection's end."""
        if self.connection is not None:
            with contextlib.suppress(TimeoutError):
                await self._ask(lambda serial: self._box.unsubscribe(serial, filters))

    # The box's listener.

    def on_connected(self, connection: Connection) -> None:
        """Send what waits, and let the owner subscribe."""
        self.connection = connection
        self._began = time.monotonic()
        self._hooks.on_connected(connection)
        self._feed.attach(connection, self._box.publish)
        self._greeting = asyncio.create_task(self._greet(connection), name="mqtt greeting")

    def on_message(self, message: paho.MQTTMessage) -> None:
        """Hand on a message with its acknowledgement."""
        acknowledge = self._receipts.add(message.mid, message.qos)
        try:
            self._hooks.on_message(packets.received(message, self._plan.version, acknowledge))
        except Exception:
            _log.exception("a message could not be dealt with")
            acknowledge()  # or the broker would deliver nothing after it

    def on_unusable(self, head: Head, why: str) -> None:
        """Count it and have the broker forget it."""
        _log.warning("a message of no use was dropped", reason=why, size_bytes=head.size)
        self._hooks.on_unusable()
        self._receipts.add(head.mid, head.qos)()

    def on_published(self, serial: int, code: int) -> None:
        """Tell the feed."""
        self._feed.answered(serial, code)

    def on_answered(self, serial: int, codes: list[int]) -> None:
        """Tell who asked."""
        question = self._questions.pop(serial)
        if not question.done():
            question.set_result(codes)

    def on_ended(self, ending: Ending) -> None:
        """Finish."""
        self._over(ending)

    def _over(self, ending: Ending) -> None:
        if self.ended.done():
            return
        self.ended.set_result(ending)
        self._feed.detach()
        if self._greeting is not None:
            self._greeting.cancel()
        # After the greeting has seen its cancellation: it must not take this for the broker's answer.
        asyncio.get_running_loop().call_soon(self._give_up_questions)

    def _give_up_questions(self) -> None:
        for question in self._questions.values():
            if not question.done():
                question.set_result([])

    async def _greet(self, connection: Connection) -> None:
        try:
            await self._hooks.greet(connection)
        except Exception as error:
            _log.exception("the beginning of a connection failed")
            self._over(Ending("internal", error=error, answered=True))

    async def _ask(self, ask: Callable[[int], None]) -> list[int]:
        self._serial += 1
        serial = self._serial
        self._questions[serial] = answer = asyncio.get_running_loop().create_future()
        ask(serial)
        return await asyncio.wait_for(answer, SUBSCRIBE_SECONDS)

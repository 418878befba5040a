"""The link: connects, connects again, and says how it stands."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Literal, Protocol

import structlog

from edged.frontends.mqtt.link import faults, tls_faults
from edged.frontends.mqtt.link.broker import Broker
from edged.frontends.mqtt.link.client import Plan
from edged.frontends.mqtt.link.connection import Connection
from edged.frontends.mqtt.link.dialect import Dialect
from edged.frontends.mqtt.link.ending import Ending
from edged.frontends.mqtt.link.fault import Fault
from edged.frontends.mqtt.link.feed import Feed
from edged.frontends.mqtt.link.live import Live
from edged.frontends.mqtt.link.pauses import CLOCK_SECONDS, DUPLICATE_SECONDS, Pauses, Suspicion
from edged.frontends.mqtt.link.subscription import Subscription
from edged.frontends.mqtt.message import Message, Outcome, Publication
from edged.progress import Progress

_log = structlog.get_logger(__name__)

LEAVE_SECONDS = 1.0  # of a stop's budget, for DISCONNECT to be written
JOIN_SECONDS = 0.5  # for a thread that has nothing left to do

State = Literal["connecting", "connected", "waiting_for_time", "backing_off", "duplicate_id", "stopped"]


class HasTime(Protocol):
    """What a clock tells the link."""

    @property
    def synchronised(self) -> bool:
        """Whether the wall clock is right."""


class Link:
    """A device's way to its broker. All of it is called on the event loop.

    Attributes:
        state: how it stands.
        fault: what keeps it from being connected; None while it is.
        connection: the present one.
        reconnects: how many connections there have been after the first.
        unusable: messages that were too large or that nobody can read.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        client_id: str,
        clean_start: bool,
        session_expiry_seconds: int,
        will: Callable[[str], Publication | None],
        on_connected: Callable[[Connection], Awaitable[None]],
        on_message: Callable[[Message], None],
        clock: HasTime,
        on_duplicate: Callable[[], None] = lambda: None,
    ) -> None:
        """Set up; `run` connects.

        Args:
            broker: where to.
            client_id: the client identifier.
            clean_start: whether the broker shall forget what it has kept for us.
            session_expiry_seconds: how long it shall keep what comes while we are away (MQTT 5).
            will: what the broker publishes if we vanish, given the session of the connection to be made.
            on_connected: subscribe here; cancelled when the connection ends before it is done. Publications
                that an earlier connection has left are on their way already.
            on_message: called for each message, in order.
            clock: tells whether a certificate that is not valid may be the clock's fault.
            on_duplicate: called each time that a second device of the same id is noticed.
        """
        self.state: State = "connecting"
        self.fault: Fault | None = None
        self.connection: Connection | None = None
        self.unusable = 0
        self._broker = broker
        self._client_id = client_id
        self._clean_start = clean_start
        self._session_expiry_seconds = session_expiry_seconds
        self._will = will
        self._on_connected = on_connected
        self._on_message = on_message
        self._on_duplicate = on_duplicate
        self._clock = clock
        self._feed = Feed()
        self._dialect = Dialect(broker.protocol)
        self._suspicion = Suspicion()
        self._pauses = Pauses()
        self._prefix = secrets.token_hex(8)  # of the ids of its sessions: others' begin otherwise
        self._tries = 0
        self._connections = 0
        self._dropped = 0  # by earlier connections
        self._live: Live | None = None
        self._foreign = self._contested = False
        self._stopping = False
        self._hurry = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def reconnects(self) -> int:
        """How many connections there have been after the first."""
        return max(0, self._connections - 1)

    @property
    def dropped(self) -> int:
        """How many messages of QoS 0 there was no room for."""
        return self._dropped + (self._live.dropped if self._live else 0)

    def progress(self) -> Progress | None:
        """Return the steps of the present connection's thread; None while there is none. From any thread."""
        live = self._live
        return live.progress if live is not None else None

    @property
    def in_flight(self) -> int:
        """How many publications the broker has yet to acknowledge."""
        return self._feed.in_flight

    @property
    def waiting(self) -> int:
        """How many publications wait for their turn."""
        return self._feed.waiting

    @property
    def has_room(self) -> bool:
        """Whether a chunk may be published at once."""
        return self._feed.has_room

    async def run(self) -> None:
        """Keep a connection up until `stop`."""
        self._idle.clear()
        try:
            while not self._stopping:
                await self._pause(await self._try())
        finally:
            self.state = "stopped"
            self._idle.set()

    def rebuild(self) -> None:
        """Leave the present connection, whose thread stands still, and make another.

        Of what it had taken nothing is lost: the broker delivers again what is not acknowledged, and what it
        has not acknowledged is sent again.
        """
        if self._live is not None:
            self._live.close("stalled")

    def foreign_session(self) -> None:
        """Note that a second device of the same id has been heard; make way for it."""
        self._foreign = True
        if self._live is not None:
            self._live.leave(will=False)

    def foreign_trace(self) -> None:
        """Note that another session was there since the last connection: this one may have cut it off."""
        self._contested = True

    def publish(self, publication: Publication) -> None:
        """Put a publication at the end of the line; it is kept until the broker has acknowledged it."""
        self._feed.publish(publication)

    def withdraw(self, publication: Publication) -> None:
        """Take a publication back if it has not left."""
        self._feed.withdraw(publication)

    async def room(self) -> None:
        """Wait, in turn with others, until there is a connection and the line is short."""
        await self._feed.room()

    async def subscribe(
        self, subscriptions: Iterable[Subscription | tuple[str, int]]
    ) -> dict[str, str | None]:
        """Subscribe; return for each filter what is wrong with it and what to do, None where nothing is."""
        live = self._live
        wanted = [Subscription(*one) for one in subscriptions]
        if live is None or live.connection is None:
            return {one.filter: faults.CONNECTION_GONE for one in wanted}
        hopeless = {one.filter: fault for one in wanted if (fault := faults.known(one, live.connection))}
        asked = [one for one in wanted if one.filter not in hopeless]
        return hopeless | await live.subscribe(asked)

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Unsubscribe, and wait for the broker's answer; without a connection, do nothing."""
        if self._live is not None and filters:
            await self._live.unsubscribe(filters)

    async def stop(self, farewell: Sequence[Publication], budget_seconds: float) -> None:
        """Send what waits and then the farewell, disconnect and end `run`.

        What the broker has not acknowledged within the budget is given up. The broker publishes the will
        only if it has not acknowledged the farewell.
        """
        deadline = time.monotonic() + budget_seconds
        self._stopping = True
        self._hurry.set()
        live = self._live
        if live is not None and live.connection is not None:
            heard = await self._say_farewell(live, farewell, budget_seconds - LEAVE_SECONDS)
            live.leave(will=not heard)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(live.ended), max(0.0, deadline - time.monotonic()))
        if live is not None:
            live.close()
            await asyncio.to_thread(live.join, JOIN_SECONDS)
        await self._idle.wait()

    async def _say_farewell(self, live: Live, farewell: Sequence[Publication], seconds: float) -> bool:
        """Return whether the broker has all of it."""
        outcomes: list[Outcome] = []
        for publication in farewell:
            self._feed.publish(replace(publication, on_outcome=outcomes.append))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(live.drained(), max(0.0, seconds))
        return [outcome.kind in ("acknowledged", "unheard") for outcome in outcomes] == [True] * len(farewell)

    async def _try(self) -> float:
        """Make an attempt, and outlive what goes wrong with it here, as where descriptors are used up."""
        try:
            return await self._attempt()
        except Exception as error:
            ending = Ending("internal", error=error)
            self._set_fault(
                faults.explain(ending, self._broker, client_id=self._client_id, clock_synchronised=True),
                ending,
            )
            self.state = "backing_off"
            return self._pauses.next()

    async def _attempt(self) -> float:
        """Connect once and stay as long as it lasts; return how long to wait before the next try."""
        version = self._dialect.choose()
        plan = self._plan(version)
        self.state = "connecting"
        self._foreign = self._contested = False
        self._live = live = Live(plan, feed=self._feed, hooks=self)
        try:
            live.start()
            ending = await live.ended
        finally:
            live.close()
            self._dropped += live.dropped
            self._live = self.connection = None
        if self._stopping:
            return 0.0
        return self._judge(ending, version, live)

    def _plan(self, version: Literal["5", "3.1.1"]) -> Plan:
        self._tries += 1
        session = f"{self._prefix}-{self._tries}"
        will = self._will(session)
        return Plan(
            broker=self._broker,
            client_id=self._client_id,
            version=version,
            session=session,
            clean_start=self._clean_start,
            session_expiry_seconds=self._session_expiry_seconds,
            will=self._dialect.fit(will) if will else None,
        )

    def _judge(self, ending: Ending, version: Literal["5", "3.1.1"], live: Live) -> float:
        """Say what is wrong and return how long to wait."""
        self._pauses.lived(live.lived)
        if self._suspicion.ended(ending, lived=live.lived, contested=self._contested) or self._foreign:
            self._set_fault(faults.duplicate(self._client_id))
            self.state = "duplicate_id"
            self._call(self._on_duplicate)
            return random.uniform(*DUPLICATE_SECONDS)
        synchronised = self._clock.synchronised
        self._set_fault(
            faults.explain(ending, self._broker, client_id=self._client_id, clock_synchronised=synchronised),
            ending,
        )
        if tls_faults.is_about_time(ending) and not synchronised:
            self.state = "waiting_for_time"
            return CLOCK_SECONDS
        self.state = "backing_off"
        if self._dialect.failed(version, ending):
            return 0.0
        return self._pauses.next()

    def _set_fault(self, fault: Fault, ending: Ending | None = None) -> None:
        if self.fault == fault:
            return  # it goes on: since when is what matters
        self.fault = fault
        _log.warning(
            "no connection with the broker",
            message=fault.message,
            remedy=fault.remedy,
            exc_info=ending.error if ending and ending.why == "internal" else None,
        )

    async def _pause(self, seconds: float) -> None:
        if self._stopping:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), seconds)
        self._hurry.clear()

    # Hooks of the live connection.

    def on_connected(self, connection: Connection) -> None:
        """Note it."""
        self.connection = connection
        self.state = "connected"
        self.fault = None
        self._connections += 1
        self._dialect.connected(connection.protocol)
        _log.info("connected with the broker", url=self._broker.url, protocol=connection.protocol)

    async def greet(self, connection: Connection) -> None:
        """Let the owner subscribe."""
        await self._on_connected(connection)

    def on_message(self, message: Message) -> None:
        """Hand a message on."""
        self._on_message(message)

    def on_unusable(self) -> None:
        """Count a message that is of no use."""
        self.unusable += 1

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            _log.exception("a callback of the link failed")

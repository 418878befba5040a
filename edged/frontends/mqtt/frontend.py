"""The MQTT frontend: what is listened to, who deals with it, start and stop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import structlog

from edged.frontends.mqtt.addresses import ReplyRule
from edged.frontends.mqtt.asks import Asks
from edged.frontends.mqtt.link import Broker, Connection, Link
from edged.frontends.mqtt.listening import Listening
from edged.frontends.mqtt.message import Message
from edged.frontends.mqtt.operators import Operators
from edged.frontends.mqtt.outbox import Outbox
from edged.frontends.mqtt.pool import Pool
from edged.frontends.mqtt.presence import Presence
from edged.frontends.mqtt.reporter import Reporter
from edged.frontends.mqtt.topics import Arrival, Topics
from edged.telemetry.alarms import DUPLICATE_ID

if TYPE_CHECKING:
    from edged.clock import Clock
    from edged.core import Core
    from edged.core.commands import Commands
    from edged.settings import Settings
    from edged.settings.mqtt import MqttTable
    from edged.telemetry.service import Telemetry

_log = structlog.get_logger(__name__)

MOST_AT_ONCE = 64
"""Messages that are dealt with at a time; beyond, those of QoS 0 are dropped. Of QoS 1 a broker delivers no
more than Receive Maximum, with 3.1.1 than a limit of its own, before the first is acknowledged."""
CLOCK_SECONDS = 5.0


class MqttFrontend:
    """Prompts from a broker's topics, and frames back to it."""

    def __init__(
        self, *, core: Core, commands: Commands, telemetry: Telemetry, settings: Settings, clock: Clock
    ) -> None:
        self._core = core
        self._telemetry = telemetry
        self._settings = settings
        self._clock = clock
        self._topics = topics = Topics(settings.mqtt.root, settings.device_id)
        self._dropped = 0
        self._closing = False
        self._dealing: set[asyncio.Task[None]] = set()
        self._tasks: list[asyncio.Task[None]] = []
        broker = Broker.from_settings(settings.mqtt)
        self._link = link = Link(
            broker,
            client_id=topics.device_id,
            clean_start=False,
            session_expiry_seconds=settings.mqtt.session_expiry_seconds,
            will=lambda session: self._presence.will(session),
            on_connected=self._connected,
            on_message=self._arrived,
            on_duplicate=self._duplicate,
            clock=clock,
        )
        self._listening = Listening(link, topics.status)
        self._outbox = Outbox(
            core=core,
            link=link,
            topics=topics,
            clock=clock,
            keep_seconds=lambda: self._table().reply_expiry_seconds,
        )
        self._asks = Asks(
            core=core,
            topics=topics,
            outbox=self._outbox,
            rule=ReplyRule(settings.mqtt.reply_prefixes, topics),
            table=self._table,
        )
        self._operators = Operators(core=core, commands=commands, link=link, topics=topics, table=self._table)
        self._presence = Presence(
            core=core, link=link, topics=topics, clock=clock, settings=lambda: self._settings
        )
        self._reporter = Reporter(
            telemetry=telemetry, link=link, topics=topics, clock=clock, settings=lambda: self._settings
        )
        self._pool: Pool | None = None
        if settings.mqtt.pool:
            self._pool = Pool(
                settings.mqtt.pool,
                core=core,
                broker=broker,
                topics=topics,
                clock=clock,
                on_message=self._arrived,
            )
        assert core.durable is not None
        core.durable.journal.on_drop = self._outbox.drop
        core.events.listeners.append(self._outbox.tell)
        core.status_parts["mqtt"] = self.status

    @property
    def links(self) -> dict[str, Link]:
        """The connections with the broker, each with a thread of its own."""
        return {"mqtt": self._link} | ({"mqtt_pool": self._pool.link} if self._pool is not None else {})

    def start(self) -> None:
        """Go on with what an earlier daemon left, and connect; returns at once, broker or no broker."""
        self._outbox.resume()
        self._asks.resume()
        self._run(self._link.run(), "mqtt link")
        self._run(self._presence.run(), "mqtt presence")
        self._run(self._reporter.run(), "mqtt reporter")
        self._run(self._watch_clock(), "mqtt clock")
        if self._pool is not None:
            self._run(self._pool.run(), "mqtt pool")

    def reload(self, settings: Settings) -> None:
        """Take over what can change while requests are served."""
        self._settings = settings
        self._asks.rule.prefixes = settings.mqtt.reply_prefixes
        self._presence.reload()

    async def close(self) -> None:
        """Take nothing more: what arrives from now on stays with the broker."""
        self._closing = True
        self._presence.refresh()
        if self._pool is not None:
            await self._pool.leave()

    async def stop(self, budget_seconds: float) -> None:
        """Send what is left and the last figures within the budget, say goodbye and disconnect."""
        for task in list(self._dealing):
            task.cancel()
        await self._asks.stop()
        await self._outbox.flush()
        self._reporter.report()
        farewell = self._presence.farewell()
        await self._link.stop((farewell,) if farewell else (), budget_seconds)
        if self._pool is not None:
            await self._pool.stop(budget_seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def status(self) -> dict[str, Any]:
        """Return the part of the status that is about MQTT."""
        connection, fault = self._link.connection, self._link.fault
        notes = self._listening.faults if connection else []
        if connection is not None:
            notes += connection.notes(self._settings.mqtt.session_expiry_seconds)
        counters = self._asks.counters
        unanswerable = counters.unanswerable + self._operators.unanswerable + self._link.unusable
        return {
            "url": self._settings.mqtt.url,
            "state": self._link.state,
            "problem": fault.as_fields() if fault else None,
            "protocol": connection.protocol if connection else None,
            "session_present": connection.session_present if connection else None,
            "notes": notes,
            "pool": self._pool.status() if self._pool else None,
            "reconnects": self._link.reconnects,
            "in_flight": self._link.in_flight,
            "waiting": self._link.waiting,
            "counters": {
                "asks": counters.asks,
                "refused": counters.refused,
                "invalid": counters.invalid,
                "not_allowed": counters.not_allowed,
                "retained_dropped": counters.retained_dropped,
                "unheard": counters.unheard,
                "dropped": unanswerable + self._dropped + self._link.dropped,
            },
        }

    def _table(self) -> MqttTable:
        return self._settings.mqtt

    def _run(self, coroutine: Any, name: str) -> None:
        self._tasks.append(asyncio.create_task(coroutine, name=name))

    async def _connected(self, connection: Connection) -> None:
        """Listen, and say that the device is here."""
        open_ask, homeassistant = self._settings.mqtt.open_ask, self._settings.telemetry.homeassistant
        filters = self._topics.subscriptions(open_ask=open_ask, homeassistant=homeassistant)
        if not open_ask:  # the broker may remember it from when it was open
            await self._link.unsubscribe((self._topics.open_ask,))
        await self._listening.begin(filters)
        self._presence.connected()
        self._reporter.connected()
        self._outbox.connected()
        await self._listening.persist()

    def _duplicate(self) -> None:
        """Tell of another device of this id."""
        if self._telemetry.alarms.note(DUPLICATE_ID):
            self._core.events.emit("duplicate_id")

    def _arrived(self, message: Message) -> None:
        """Hand a message to who deals with it."""
        arrival = self._topics.read(message.topic)
        if arrival is None:
            message.acknowledge()
        elif arrival.subject == "status":
            rival = self._presence.heard(message)
            if rival == "here":
                self._link.foreign_session()
            elif rival == "was_here":
                self._link.foreign_trace()
        elif arrival.subject == "homeassistant":
            message.acknowledge()
            if message.payload == b"online":
                self._reporter.announce()
        elif message.topic == self._topics.open_ask and not self._settings.mqtt.open_ask:
            self._dropped += 1
            message.acknowledge()
        elif self._closing:
            return  # not acknowledged: it is for the next daemon
        elif arrival.subject == "cancel":
            self._asks.cancel(message, arrival)
        elif message.qos == 0 and len(self._dealing) >= MOST_AT_ONCE:
            self._dropped += 1
        else:
            task = asyncio.create_task(self._deal(message, arrival), name=f"mqtt {arrival.subject}")
            self._dealing.add(task)
            task.add_done_callback(self._dealing.discard)

    async def _deal(self, message: Message, arrival: Arrival) -> None:
        try:
            if arrival.subject == "ask":
                await self._asks.ask(message, arrival)
            else:
                await self._operators.command(message, arrival.name)
        except Exception:
            # One message must not take the frontend down; the broker need not deliver it again.
            _log.exception("a message could not be dealt with", subject=arrival.subject)
            message.acknowledge()

    async def _watch_clock(self) -> None:
        """Count the time switched off as soon as the clock can tell it."""
        assert self._core.durable is not None
        while True:
            if self._clock.synchronised:
                self._core.durable.recheck_ttl()
                return
            await asyncio.sleep(CLOCK_SECONDS)

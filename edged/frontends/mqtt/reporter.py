"""The device's telemetry on its topics: health, figures by part, alarms, and Home Assistant's discovery."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from edged.frontends.mqtt import homeassistant
from edged.frontends.mqtt.message import Publication
from edged.frontends.mqtt.wire import encode, head
from edged.telemetry.alarms import TYPES
from edged.telemetry.fields import flat, nested

if TYPE_CHECKING:
    from edged.clock import Clock
    from edged.frontends.mqtt.link import Link
    from edged.frontends.mqtt.topics import Topics
    from edged.settings import Settings
    from edged.telemetry.service import Telemetry
    from edged.telemetry.snapshot import Snapshot

_log = structlog.get_logger(__name__)

PARTS = ("thermal", "power", "memory", "inference")
"""Parts of the snapshot that have a topic of their own; the rest is in `health`."""
CHECK_SECONDS = 1.0


class Reporter:
    """Publishes what the telemetry tells.

    Args:
        telemetry: tells it.
        link: the connection with the broker.
        topics: this device's.
        clock: for time stamps.
        settings: as they are now.
    """

    def __init__(
        self,
        *,
        telemetry: Telemetry,
        link: Link,
        topics: Topics,
        clock: Clock,
        settings: Callable[[], Settings],
    ) -> None:
        self._telemetry = telemetry
        self._link = link
        self._topics = topics
        self._clock = clock
        self._settings = settings
        self._due_at = 0.0
        telemetry.alarms.listeners.append(self._alarm_turned)

    async def run(self) -> None:
        """Publish at the configured interval until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if time.monotonic() >= self._due_at:
                self.report()

    def connected(self) -> None:
        """Tell everything to a broker that may know what is no longer true."""
        for type in TYPES:
            self._tell_alarm(type, is_raised=type in self._telemetry.alarms.raised)
        self.announce()
        self.report()

    def report(self) -> None:
        """Publish the figures of this moment; raises nothing."""
        interval = self._settings().telemetry.interval_seconds
        self._due_at = time.monotonic() + interval
        if self._link.connection is None or (snapshot := self._look()) is None:
            return
        self._publish(self._topics.health, self._health(snapshot), retain=True)
        for part in PARTS:
            fields = {**self._head(), **flat(getattr(snapshot, part))}
            self._publish(self._topics.telemetry(part), fields, qos=0, lifetime=2.0 * interval)

    def announce(self) -> None:
        """Tell Home Assistant what there is, where that is wanted; raises nothing."""
        table = self._settings().telemetry
        if self._link.connection is None or not table.homeassistant or (snapshot := self._look()) is None:
            return
        fields = homeassistant.discovery(self._topics, snapshot, table.interval_seconds)
        self._publish(homeassistant.topic(self._topics.device_id), fields, retain=True)

    def _look(self) -> Snapshot | None:
        try:
            return self._telemetry.snapshot()
        except Exception:
            # Figures of the system may be out of reach: they are told when they are not.
            _log.exception("the telemetry could not be told")
            return None

    def _alarm_turned(self, type: str, is_raised: bool) -> None:
        if self._link.connection is not None:  # otherwise it is told with the others when there is one
            self._tell_alarm(type, is_raised=is_raised)
            self.report()  # health names the alarms

    def _tell_alarm(self, type: str, *, is_raised: bool) -> None:
        fields = {**self._head(), "type": type} if is_raised else None
        self._publish(self._topics.alarm(type), fields, retain=True)

    def _publish(self, topic: str, fields: dict[str, Any] | None, **more: Any) -> None:
        payload = encode(fields).encode() if fields is not None else b""
        self._link.publish(Publication(topic, payload, **more))

    def _health(self, snapshot: Snapshot) -> dict[str, Any]:
        return {
            **self._head(),
            "phase": snapshot.phase,
            "uptime_seconds": snapshot.uptime_seconds,
            "requests": nested(snapshot.inference.requests),
            "device": nested(snapshot.device),
            "mqtt": nested(snapshot.mqtt) if snapshot.mqtt else None,
            "watch": nested(snapshot.watch),
        }

    def _head(self) -> dict[str, Any]:
        return {**head(self._topics.device_id), **self._clock.fields()}

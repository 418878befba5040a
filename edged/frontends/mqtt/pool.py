"""This device's part in a pool, on a connection of its own.

A broker keeps handing a member its share while it sleeps, so the device is a member only while it can answer:
its session ends with the connection, and it leaves when it stops or has no model.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import structlog

from edged.frontends.mqtt.link import Broker, Connection, Link, Subscription
from edged.frontends.mqtt.listening import AGAIN_SECONDS
from edged.frontends.mqtt.message import Message

if TYPE_CHECKING:
    from edged.clock import Clock
    from edged.core import Core
    from edged.frontends.mqtt.topics import Topics

_log = structlog.get_logger(__name__)

CHECK_SECONDS = 0.5
LEAVE_SECONDS = 1.0  # of a stop's budget, which requests want too


class Pool:
    """Takes a share of a pool's prompts.

    Attributes:
        joined: whether the broker hands us a share now.
        link: its connection.
    """

    def __init__(
        self,
        name: str,
        *,
        core: Core,
        broker: Broker,
        topics: Topics,
        clock: Clock,
        on_message: Callable[[Message], None],
    ) -> None:
        self.joined = False
        self._name = name
        self._core = core
        self._filters = topics.pool_subscriptions(name)
        self._fault: str | None = None
        self._leaving = False
        self._pause, self._again_at = AGAIN_SECONDS[0], 0.0  # after a refusal, and when it is over
        self._settling = asyncio.Lock()
        self.link = Link(
            broker,
            client_id=f"{topics.device_id}-pool",
            clean_start=True,
            session_expiry_seconds=0,
            will=lambda session: None,
            on_connected=self._connected,
            on_message=on_message,
            on_duplicate=lambda: None,
            clock=clock,
        )

    async def run(self) -> None:
        """Be a member whenever prompts can be answered, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.link.run(), name="pool link")
            while True:
                try:
                    await self._settle()
                except Exception:
                    _log.exception("the pool could be neither joined nor left", pool=self._name)
                await asyncio.sleep(CHECK_SECONDS)

    async def leave(self) -> None:
        """Take no share any more; a broker that is slow to agree is left to notice the connection's end."""
        self._leaving = True
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._settle(), LEAVE_SECONDS)

    async def stop(self, budget_seconds: float) -> None:
        """End the connection."""
        await self.link.stop((), budget_seconds)

    def status(self) -> dict[str, Any]:
        """Return the part of the status that is about the pool."""
        fault = self.link.fault
        return {
            "name": self._name,
            "state": self.link.state,
            "joined": self.joined,
            "problem": fault.message if fault else self._fault,
        }

    async def _connected(self, connection: Connection) -> None:
        self.joined = False
        self._pause, self._again_at = AGAIN_SECONDS[0], 0.0
        await self._settle()

    async def _settle(self) -> None:
        """Join or leave, whichever is due."""
        async with self._settling:
            await self._join_or_leave()

    async def _join_or_leave(self) -> None:
        wanted = self._core.ready and not self._leaving
        if wanted == self.joined or self.link.connection is None:
            self.joined = self.joined and self.link.connection is not None
            return
        if not wanted:
            self.joined = False
            await self.link.unsubscribe(self._filters)
            _log.info("left the pool", pool=self._name)
            return
        if not self.link.connection.shared_available:
            self._fault = "the broker has no shared subscriptions (MQTT 5): this device can't join a pool"
            return
        if time.monotonic() < self._again_at:
            return
        faults = await self.link.subscribe(
            Subscription(filter, retain_as_published=True) for filter in self._filters
        )
        self._fault = next((fault for fault in faults.values() if fault), None)
        self.joined = self._fault is None
        if self.joined:
            _log.info("joined the pool", pool=self._name)
            return
        self._again_at = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, AGAIN_SECONDS[1])
        # Half a member would be handed prompts, too.
        await self.link.unsubscribe([filter for filter, fault in faults.items() if fault is None])

"""What the device listens to: asked for on each connection, and again where the broker refuses it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog

from edged.frontends.mqtt.link import Subscription

if TYPE_CHECKING:
    from edged.frontends.mqtt.link import Link

_log = structlog.get_logger(__name__)

AGAIN_SECONDS = (5.0, 600.0)
"""Between two tries of what the broker refuses: the first pause, and the longest."""


class Listening:
    """Subscriptions, and what is wrong with each.

    Args:
        link: the connection with the broker.
        status: the topic of our own status, of which we want the echo, and what another device of the same id
            has left there; of a prompt we want to know that it is kept by the broker.
    """

    def __init__(self, link: Link, status: str) -> None:
        self._link = link
        self._status = status
        self._faults: dict[str, str | None] = {}

    @property
    def faults(self) -> list[str]:
        """What is wrong, and what to do about it."""
        return [fault for fault in self._faults.values() if fault]

    async def begin(self, filters: Iterable[str]) -> None:
        """Ask for all on a new connection."""
        self._faults = {}
        await self._ask(filters)
        for filter, fault in self._faults.items():
            if fault:
                _log.warning("the broker refuses a subscription", filter=filter, reason=fault)

    async def persist(self) -> None:
        """Ask again until all is granted: a cluster without a leader refuses, and would leave us deaf."""
        pause, longest = AGAIN_SECONDS
        while refused := [filter for filter, fault in self._faults.items() if fault]:
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)
            await self._ask(refused)
            for filter in refused:
                if self._faults[filter] is None:
                    _log.info("the broker grants a subscription that it had refused", filter=filter)

    async def _ask(self, filters: Iterable[str]) -> None:
        self._faults |= await self._link.subscribe(
            Subscription(filter, no_local=False, retain_handling=0)
            if filter == self._status
            else Subscription(filter, retain_as_published=True)
            for filter in filters
        )

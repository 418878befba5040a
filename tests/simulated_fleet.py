"""Simulated devices (tools.fleetsim) at a real broker, beside a test that is not asynchronous."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

from tools.fleetsim.device import Device
from tools.fleetsim.fleet import Fleet
from tools.fleetsim.link import Place

PATIENCE_SECONDS = 30


class SimulatedFleet:
    """A fleet in a thread of its own; `close` ends it.

    Attributes:
        devices: to look at; `do` acts on them.
    """

    def __init__(self, port: int, count: int, *, root: str, interval: float = 1.0) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._fleet = self._wait(self._make(port, count, root, interval))
        self.devices = self._fleet.devices

    def do(self, what: Callable[[Device], None], *numbers: int) -> None:
        """Have something done with these devices, or all, where they live."""

        async def act() -> None:
            for device in [self.devices[number] for number in numbers] or self.devices:
                what(device)

        self._wait(act())

    def start(self, *numbers: int) -> None:
        """Start these devices again."""
        self._wait(self._fleet.start([self.devices[number] for number in numbers]))

    def stop(self, *numbers: int) -> None:
        """Have these devices end in order."""

        async def stop() -> None:
            await asyncio.gather(*(self.devices[number].stop() for number in numbers))

        self._wait(stop())

    def close(self) -> None:
        """End the devices and the thread."""
        self._wait(self._fleet.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _make(self, port: int, count: int, root: str, interval: float) -> Fleet:
        fleet = Fleet(count, Place("127.0.0.1", port), root=root, interval=interval)
        await fleet.start()
        return fleet

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_SECONDS)

"""How late messages are: a reader beside the fleet that looks at the time stamps of a few devices."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import datetime
from statistics import median

from tools.fleetsim.device import Device
from tools.fleetsim.link import Link, Place
from tools.fleetsim.packets import Message


class Observer:
    """Reads `telemetry/inference`, the last of each report, of a few devices.

    The time from the device's stamp to here is the broker's lag and this process's own.
    """

    def __init__(self) -> None:
        self._seconds: list[float] = []

    async def start(self, place: Place, root: str, devices: Sequence[Device]) -> None:
        """Connect, and listen to these devices.

        Raises:
            OSError: see `Link.open`.
        """
        self._link = Link(self._received, lambda: None)
        filters = [f"{root}/v1/{device.id}/telemetry/inference" for device in devices]
        await self._link.open(place, "sim-observer", filters=filters)

    async def close(self) -> None:
        """Leave."""
        await self._link.close()

    def take(self) -> tuple[int, float, float, float]:
        """Return how many messages came since the last call, and their lag: median, 99th of 100, most (s)."""
        found, self._seconds = sorted(self._seconds), []
        if not found:
            return 0, 0.0, 0.0, 0.0
        return len(found), median(found), found[min(len(found) - 1, int(0.99 * len(found)))], found[-1]

    def _received(self, message: Message) -> None:
        told = datetime.fromisoformat(json.loads(message.payload)["time"]).timestamp()
        self._seconds.append(time.time() - told)

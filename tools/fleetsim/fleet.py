"""The simulated fleet: started a few at a time, so that a broker's backlog of connections is not overrun."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Iterable

from tools.fleetsim.device import Device
from tools.fleetsim.link import Place

AT_ONCE = 100
SPARE_FILES = 64


def check_files(devices: int) -> None:
    """See to it that this process may open a socket for each device, and that the broker may, too.

    Raises:
        ValueError: it may not; with the figures, and what to do.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = devices + SPARE_FILES
    if soft < needed <= hard or hard == resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    elif hard < needed:
        raise ValueError(
            f"{devices} devices need {needed} open files, {hard} are allowed: raise `ulimit -Hn` (nofile in "
            "/etc/security/limits.conf; LimitNOFILE= of the broker's unit, too), or simulate fewer"
        )


class Fleet:
    """Devices that live in this process.

    Attributes:
        devices: all of them.
    """

    def __init__(
        self, count: int, place: Place, *, root: str = "edged", interval: float = 10.0, qos: int = 1
    ) -> None:
        check_files(count)
        self.devices = [
            Device(number, place, root=root, interval=interval, qos=qos) for number in range(count)
        ]
        self._gate = asyncio.Semaphore(AT_ONCE)

    @property
    def online(self) -> int:
        """How many are connected."""
        return sum(device.is_online for device in self.devices)

    async def start(self, devices: Iterable[Device] | None = None) -> None:
        """Start these devices, or all; return when all are online.

        Raises:
            ExceptionGroup: of OSError, if one can't connect.
        """
        async with asyncio.TaskGroup() as starting:
            for device in self.devices if devices is None else devices:
                starting.create_task(self._start(device))

    async def all_online(self, timeout: float) -> bool:
        """Say whether every device is connected, after so many seconds at most."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self.online == len(self.devices):
                return True
            await asyncio.sleep(0.05)
        return False

    async def stop(self) -> None:
        """End every device in order."""
        await asyncio.gather(*(device.stop() for device in self.devices))

    async def _start(self, device: Device) -> None:
        async with self._gate:
            await device.start()

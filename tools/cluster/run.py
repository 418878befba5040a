"""The two trials: a cluster that loses a node, and a bridge that is cut."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from tests.brokers import Mosquitto
from tools.chaos.proxy import Proxy
from tools.cluster.daemons import Daemons
from tools.cluster.front import Front
from tools.cluster.nodes import COUNT, Cluster
from tools.cluster.requester import Requester
from tools.fleetsim.fleet import Fleet
from tools.fleetsim.link import Place
from tools.trials import Verdict

Tell = Callable[[str], None]

INTERVAL = 10.0
_PATIENCE_SECONDS = 120.0
_ASK_EVERY_SECONDS = 0.5
BRIDGE = """allow_anonymous true
max_queued_messages 0
connection site-1
address 127.0.0.1:{port}
remote_clientid site-1
cleansession false
keepalive_interval 5
restart_timeout 1 4
notification_topic edged/bridge/site-1
topic edged/v1/+/status out 1
topic edged/v1/+/info out 1
topic edged/v1/+/health out 1
topic edged/v1/+/alarm/# out 1
topic edged/v1/+/event/# out 1
topic edged/v1/+/telemetry/# out 0
topic edged/v1/+/reply/# out 1
topic edged/v1/+/cmd/+/result out 1
topic edged/v1/+/ask/# in 1
topic edged/v1/+/cancel/+ in 1
topic edged/v1/+/cmd/+ in 1"""
CENTRAL = "allow_anonymous true\nmax_queued_messages 0"


async def cluster(directory: Path, model: Path, devices: int, seconds: float, tell: Tell) -> Verdict:
    """Kill one node of three, bring it back, and count what came through."""
    nodes = Cluster(directory / "nats")
    front = Front(nodes.ports)
    await front.start()
    try:
        for number in range(COUNT):
            nodes.start(number)
        place = Place("127.0.0.1", front.port)
        async with _house(directory, model, place, place, 3, devices, tell) as (fleet, real, requester):
            asking = asyncio.create_task(requester.ask(real.ids, 4 * seconds, _ASK_EVERY_SECONDS))
            watched = _Watched(fleet, requester, seconds, tell)
            await watched.part("three nodes")
            nodes.kill(1)
            await watched.part("one node is killed")
            nodes.start(1)
            await watched.part("it is back")
            await watched.part("afterwards")
            await asking
            return await watched.verdict(devices=devices, daemons=len(real.ids))
    finally:
        nodes.stop()
        await front.stop()


async def bridge(directory: Path, model: Path, devices: int, seconds: float, tell: Tell) -> Verdict:
    """Cut a site's broker off from the central one, where the requester is, and join them again."""
    central = Mosquitto(directory / "central", config=CENTRAL)
    central.start()
    with Proxy(central.port) as line:
        site = Mosquitto(directory / "site", config=BRIDGE.format(port=line.port))
        site.start()
        try:
            near, far = Place("127.0.0.1", site.port), Place("127.0.0.1", central.port)
            async with _house(directory, model, near, far, 1, devices, tell) as (fleet, real, requester):
                asking = asyncio.create_task(requester.ask(real.ids, 4 * seconds, _ASK_EVERY_SECONDS))
                watched = _Watched(fleet, requester, seconds, tell)
                await watched.part("joined")
                line.stall()
                line.reset()
                await watched.part("the bridge is cut", silent=True)
                line.resume()
                await watched.part("it is restored")
                await watched.part("afterwards")
                await asking
                return await watched.verdict(devices=devices, daemons=len(real.ids))
        finally:
            site.stop()
            central.stop()


@contextlib.asynccontextmanager
async def _house(
    directory: Path, model: Path, near: Place, far: Place, daemons: int, devices: int, tell: Tell
) -> AsyncIterator[tuple[Fleet, Daemons, Requester]]:
    """Have devices and daemons at the broker `near`, all of them seen by a requester at `far`."""
    # In NATS each subscription at QoS 1 is a consumer of JetStream with a Raft group: the daemons have those.
    fleet = Fleet(devices, near, interval=INTERVAL, qos=0)
    requester = Requester(far)
    listening = asyncio.create_task(requester.run())
    real = Daemons(directory, model, near.port, daemons)
    try:
        began = time.monotonic()
        while fleet.online < devices:
            try:
                await fleet.start(device for device in fleet.devices if not device.is_online)
            except* (OSError, TimeoutError):
                await asyncio.sleep(1)  # the brokers are not ready yet
            if time.monotonic() - began > _PATIENCE_SECONDS:
                raise TimeoutError(f"{fleet.online} of {devices} devices are online")
        while not requester.online.issuperset(real.ids):
            await asyncio.sleep(0.1)
            if time.monotonic() - began > _PATIENCE_SECONDS:
                raise TimeoutError(f"of {real.ids} are online: {sorted(requester.online)[-3:]}")
        tell(f"{devices} devices and {daemons} daemons are online after {time.monotonic() - began:.1f} s")
        yield fleet, real, requester
    finally:
        real.stop()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await fleet.stop()


class _Watched:
    """The parts of a trial, and what came through in each."""

    def __init__(self, fleet: Fleet, requester: Requester, seconds: float, tell: Tell) -> None:
        self._fleet = fleet
        self._requester = requester
        self._seconds = seconds
        self._tell = tell
        self._counts: dict[str, int] = {}
        self._faults: list[str] = []

    async def part(self, what: str, *, silent: bool = False) -> None:
        """Let time pass and count; unless it is to be silent, reports must come."""
        told, ended = Counter(self._requester.told), len(self._requester.ended)
        await asyncio.sleep(self._seconds)
        came, answers = self._requester.told - told, len(self._requester.ended) - ended
        self._counts[f"reports: {what}"] = came.total()
        if not came and not silent:
            self._faults.append(f"no reports came: {what}")
        figures = ", ".join(f"{count} of {kind}" for kind, count in sorted(came.items()))
        self._tell(
            f"{what}, {self._seconds:g} s: {self._fleet.online} devices online, {answers} answers, {figures}"
        )

    async def verdict(self, **counts: int) -> Verdict:
        """Wait for what is still to come, and judge."""
        requester, fleet = self._requester, self._fleet
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(requester.all_ended(), _PATIENCE_SECONDS)
        all_online = await fleet.all_online(_PATIENCE_SECONDS)
        waiting = requester.waiting()
        counts |= self._counts | {
            "asked": len(requester.asked),
            "accepted": len(requester.accepted),
            "answered": len(requester.ended),
            "repeats": requester.repeats,
            "longest pause, s": round(requester.longest_pause()),
        }
        if lost := [identity for identity in waiting if identity in requester.accepted]:
            self._faults.append(f"accepted and not answered: {', '.join(lost)}")
        if never := [identity for identity in waiting if identity not in requester.accepted]:
            self._faults.append(f"neither accepted nor answered: {', '.join(never)}")
        if not all_online:
            self._faults.append(f"{len(fleet.devices) - fleet.online} devices are not back")
        return Verdict(counts, dict(requester.errors), self._faults)

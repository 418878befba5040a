"""One trial of the fleet: rest, deaths, a storm of reconnects, each with what it costs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from tools.fleetsim.cost import Cost
from tools.fleetsim.device import Device
from tools.fleetsim.fleet import Fleet
from tools.fleetsim.link import Place
from tools.fleetsim.observer import Observer
from tools.fleetsim.watcher import Watcher
from tools.trials import Verdict

WATCH_CORES = 0.5
OBSERVED = 100
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What is simulated.

    Attributes:
        place: the broker.
        broker_pid: its process, where it is ours.
        root: the first levels of the topics.
        devices: how many.
        interval: of telemetry, in seconds.
        seconds: how long each part is measured.
        watch: run `edgectl fleet watch` beside it.
        ca_file: what it trusts, with TLS.
    """

    place: Place
    broker_pid: int | None
    root: str
    devices: int
    interval: float
    seconds: float
    watch: bool
    ca_file: str | None


async def run(plan: Plan, tell: Callable[[str], None]) -> Verdict:
    """Run the trial; the verdict's faults say what does not hold.

    Raises:
        ValueError: too few files may be opened.
        OSError: the broker can't be reached.
    """
    verdict = Verdict(counts={"devices": plan.devices}, errors={})
    fleet = Fleet(plan.devices, plan.place, root=plan.root, interval=plan.interval)
    observer = Observer()
    costs = {"fleetsim": Cost(os.getpid())}
    if plan.broker_pid is not None:
        costs["mosquitto"] = Cost(plan.broker_pid)
    began = time.monotonic()
    await fleet.start()
    tell(f"{fleet.online} devices are online after {time.monotonic() - began:.1f} s")
    await observer.start(plan.place, plan.root, fleet.devices[:: max(1, plan.devices // OBSERVED)])
    watcher = Watcher(plan.place, plan.root, ca_file=plan.ca_file) if plan.watch else None
    try:
        if watcher is not None:
            seconds = await watcher.sees(_PATIENCE_SECONDS, online=plan.devices)
            tell(f"fleet watch shows all of them {seconds:.1f} s after its start: {watcher.cost.told()}")
            costs["fleet watch"] = watcher.cost
        await _measure("at rest", plan, fleet, observer, costs, tell)
        if watcher is not None:
            verdict.counts["watch_percent_of_a_core"] = round(100 * watcher.cost.cores)
            if watcher.cost.cores > WATCH_CORES:
                verdict.faults.append(f"fleet watch took {100 * watcher.cost.cores:.0f} % of a core at rest")
        await _deaths(plan, fleet, watcher, verdict, tell)
        await _storm(plan, fleet, watcher, verdict, tell)
        await _measure("after the storm", plan, fleet, observer, costs, tell)
        if watcher is not None:
            tell(f"fleet watch has written {watcher.written / 1000:.0f} kB to its terminal")
    except TimeoutError as error:
        verdict.faults.append(str(error))
    finally:
        if watcher is not None:
            watcher.close()
        await observer.close()
        await fleet.stop()
    return verdict


async def _measure(
    what: str,
    plan: Plan,
    fleet: Fleet,
    observer: Observer,
    costs: dict[str, Cost],
    tell: Callable[[str], None],
) -> None:
    """Let time pass, and say what it cost."""
    observer.take()
    for cost in costs.values():
        cost.restart()
    await asyncio.sleep(plan.seconds)
    seen, *lags = observer.take()
    middle, high, most = (round(1000 * lag) for lag in lags)
    rate = 5 * fleet.online / plan.interval
    tell(f"{what}, {plan.seconds:g} s, {fleet.online} online, {rate:.0f} messages a second")
    for name, cost in costs.items():
        tell(f"  {name:<12} {cost.told()}")
    tell(f"  lag of {seen} messages: median {middle}, 99 % {high}, most {most} ms")


async def _deaths(
    plan: Plan, fleet: Fleet, watcher: Watcher | None, verdict: Verdict, tell: Callable[[str], None]
) -> None:
    """Let one in twenty die, see it on the screen, and bring them back."""
    dying = fleet.devices[::20]
    for device in dying:
        device.die()
    if watcher is not None:
        seconds = await watcher.sees(_PATIENCE_SECONDS, dead=len(dying))
        tell(f"{len(dying)} devices died at once: on the screen after {seconds:.1f} s")
        verdict.counts["deaths_shown"] = len(dying)
    await fleet.start(dying)
    if watcher is not None:
        seconds = await watcher.sees(_PATIENCE_SECONDS, online=plan.devices)
        tell(f"they are back: on the screen {seconds:.1f} s later")


async def _storm(
    plan: Plan, fleet: Fleet, watcher: Watcher | None, verdict: Verdict, tell: Callable[[str], None]
) -> None:
    """Cut every connection at once; the devices come back by themselves."""
    began = time.monotonic()
    for device in fleet.devices:
        Device.drop(device)
    if not await fleet.all_online(_PATIENCE_SECONDS):
        verdict.faults.append(f"{plan.devices - fleet.online} devices do not come back after the storm")
        return
    tell(f"all were cut off at once: all are back after {time.monotonic() - began:.1f} s")
    if watcher is not None:
        seconds = await watcher.sees(_PATIENCE_SECONDS, online=plan.devices)
        tell(f"on the screen {seconds:.1f} s after that")

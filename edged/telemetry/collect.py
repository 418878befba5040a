"""Builds the snapshot: the one place where core, watches and machine are looked at for it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from edged import __version__
from edged.telemetry import device
from edged.telemetry.device import EnergyMeter
from edged.telemetry.snapshot import (
    Distribution,
    Inference,
    Memory,
    MemoryLevel,
    Mqtt,
    Power,
    Requests,
    Snapshot,
    Thermal,
    Versions,
    Watch,
)
from edged.watch.readings import counts

if TYPE_CHECKING:
    from edged.core import Core
    from edged.core.histogram import Histogram
    from edged.watch.memory.policy import MemoryState
    from edged.watch.thermal.governor import Decision
    from edged.watch.thermal.reading import ThermalReading


class MemorySource(Protocol):
    """The watch over memory, as far as it is told of."""

    @property
    def state(self) -> MemoryState:
        """What was decided last, and the reading."""

    @property
    def engine_proportional_bytes(self) -> int | None:
        """The engine's share of memory."""


class ThermalSource(Protocol):
    """The watch over heat, as far as it is told of."""

    @property
    def reading(self) -> ThermalReading:
        """What the sensors said last."""

    @property
    def decision(self) -> Decision:
        """What is in force."""

    @property
    def target(self) -> float:
        """Degrees Celsius that are not passed."""


class Collector:
    """Makes snapshots.

    Args:
        core: the daemon.
        memory: the watch over memory.
        thermal: the watch over heat.
        alarms: gives the alarms that are raised.
        root: where /proc and /sys are found.
    """

    def __init__(
        self,
        core: Core,
        *,
        memory: MemorySource,
        thermal: ThermalSource,
        alarms: Callable[[], tuple[str, ...]],
        root: Path = Path("/"),
    ) -> None:
        self._core = core
        self._memory = memory
        self._thermal = thermal
        self._alarms = alarms
        self._root = root
        self._board = device.board(root)
        self._energy = EnergyMeter(root)

    def snapshot(self) -> Snapshot:
        """Look at everything."""
        core = self._core
        clock = core.clock.fields()
        return Snapshot(
            device_id=core.settings.device_id,
            time=clock["time"],
            clock_synchronised=clock["clock_synchronised"],
            phase=core.phase,
            uptime_seconds=round(time.monotonic() - core.started, 1),
            versions=self._versions(),
            device=device.device(core.settings.state_dir),
            thermal=self._heat(),
            power=self._power(),
            memory=self._memory_fields(),
            inference=self._inference(),
            mqtt=self._mqtt(),
            watch=self._watch(),
        )

    def _versions(self) -> Versions:
        plan = self._core.engine.plan
        return Versions(
            edged=__version__,
            python=platform.python_version(),
            library=plan.library if plan else None,
            kernel=platform.release(),
            board=self._board,
            model=plan.name if plan else None,
        )

    def _heat(self) -> Thermal:
        reading, decision = self._thermal.reading, self._thermal.decision
        flags = reading.flags
        seen = flags.seen if flags else frozenset()
        return Thermal(
            celsius=reading.celsius,
            target_celsius=self._thermal.target,
            zone_celsius=device.zones(self._root),
            fan_rpm=reading.fan_rpm,
            processor_hertz=reading.megahertz * 1e6 if reading.megahertz is not None else None,
            capped=flags.capped if flags else None,
            throttled=flags.throttled if flags else None,
            soft_limit=flags.soft_limit if flags else None,
            capped_since_boot="capped" in seen if flags else None,
            throttled_since_boot="throttled" in seen if flags else None,
            soft_limit_since_boot="soft_limit" in seen if flags else None,
            duty_ratio=round(decision.duty, 3),
            threads=decision.threads,
        )

    def _power(self) -> Power:
        reading = self._thermal.reading
        flags = reading.flags
        return Power(
            under_voltage=flags.under_voltage if flags else None,
            under_voltage_since_boot="under_voltage" in flags.seen if flags else None,
            watts=reading.watts,
            energy_joules_total=self._energy.joules(reading.watts),
        )

    def _memory_fields(self) -> Memory:
        reading = self._memory.state.reading
        machine, group, engine = (
            (reading.machine, reading.group, reading.engine) if reading else (None, None, None)
        )
        pressure = reading.machine_pressure if reading else None
        plan, prefixes = self._core.engine.plan, self._core.engine.prefixes
        return Memory(
            size_bytes=machine.total if machine else None,
            available_bytes=machine.available if machine else None,
            swap_free_bytes=machine.swap_free if machine else None,
            pressure_some_ratio=round(pressure.some / 100, 4) if pressure else None,
            pressure_full_ratio=round(pressure.full / 100, 4) if pressure else None,
            group_bytes=group.current if group else None,
            group_limit_bytes=group.limit if group else None,
            group_available_bytes=group.available if group else None,
            group_oom_kills_total=group.oom_kills if group else None,
            daemon_bytes=counts(self._root / "proc/self/status", "VmRSS").get("VmRSS"),
            engine_bytes=engine.anonymous if engine else None,
            engine_mapped_bytes=engine.mapped if engine else None,
            engine_proportional_bytes=self._memory.engine_proportional_bytes,
            kv_cells=self._core.engine.context * plan.load.sequences
            if self._core.engine.context and plan
            else None,
            kv_cells_used=sum(ticket.tokens_held for ticket in self._core.dispatcher.running),
            prefix_cache_bytes=prefixes.bytes if prefixes else None,
            prefix_cache_limit_bytes=prefixes.max_bytes if prefixes else None,
            prefix_cache_entries=prefixes.entries if prefixes else None,
        )

    def _inference(self) -> Inference:
        core, outcomes = self._core, self._core.outcomes
        return Inference(
            engine=core.engine.state,
            engine_deaths_total=core.engine.supervisor.deaths,
            requests=Requests(
                queued=len(core.queue),
                running=core.running,
                put_back=len(core.dispatcher.put_back),
                accepted_total=outcomes.accepted,
                done_total=outcomes.done,
                cancelled_total=outcomes.cancelled,
                failed_total=dict(outcomes.failures),
                refused_total=dict(outcomes.refusals),
            ),
            prompt_tokens_total=outcomes.prompt_tokens,
            cached_tokens_total=outcomes.cached_tokens,
            answer_tokens_total=outcomes.answer_tokens
            + sum(ticket.completion_tokens for ticket in core.in_hand()),
            prompt_tokens_per_second=_rounded(core.speed.prompt_tokens_per_second),
            first_token_seconds=_distribution(outcomes.first_token_seconds),
            tokens_per_second=_distribution(outcomes.tokens_per_second),
        )

    def _mqtt(self) -> Mqtt | None:
        part = self._core.status_parts.get("mqtt")
        if part is None:
            return None
        link = part()
        journal = self._core.durable.journal.status() if self._core.durable else {}
        return Mqtt(
            link=link["state"],
            reconnects_total=link["reconnects"],
            in_flight=link["in_flight"],
            waiting=link["waiting"],
            messages_total=link["counters"],
            outbox=journal.get("outbox"),
            outbox_bytes=journal.get("outbox_bytes"),
            journal_bytes=journal.get("bytes"),
            journal_limit_bytes=journal.get("max_bytes"),
            journal_asks=journal.get("asks"),
            journal_can_write=journal["state"] == "ok" if journal else None,
        )

    def _watch(self) -> Watch:
        decision, state = self._thermal.decision, self._memory.state
        return Watch(
            memory_level=cast(MemoryLevel, state.level.label) if state.reading else None,
            thermal_state=decision.state,
            thermometer_fault=decision.fault,
            alarms=self._alarms(),
        )


def _distribution(histogram: Histogram) -> Distribution:
    return Distribution(
        count=histogram.count,
        sum=round(histogram.sum, 3),
        p50=_rounded(histogram.quantile(0.5)),
        p95=_rounded(histogram.quantile(0.95)),
        buckets={
            f"{bound:g}": count for bound, count in zip(histogram.bounds, histogram.cumulative, strict=True)
        },
    )


def _rounded(value: float | None) -> float | None:
    return round(value, 3) if value is not None else None

"""A snapshot of a device of which everything is known."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, get_type_hints

from edged.telemetry.describe import unwrapped
from edged.telemetry.snapshot import (
    Device,
    Distribution,
    Inference,
    Memory,
    Mqtt,
    Power,
    Requests,
    Snapshot,
    Thermal,
    Versions,
    Watch,
)


def distribution(*counts: int) -> Distribution:
    """Return values of 0.5, 1.5, 2.5 …, so many each, in buckets up to 1, 2, 3 …."""
    buckets = {f"{bound:d}": sum(counts[:bound]) for bound in range(1, len(counts) + 1)}
    total = sum(count * (place + 0.5) for place, count in enumerate(counts))
    return Distribution(sum(counts), total, 1.5, 2.5, buckets)


def snapshot() -> Snapshot:
    """Return it."""
    return Snapshot(
        device_id="pi-1",
        time="2026-11-21T12:00:00.000Z",
        clock_synchronised=True,
        phase="ready",
        uptime_seconds=3600.5,
        versions=Versions("0.1.0", "3.13.1", "llama-cpp-python 0.3.36", "6.12", "Raspberry Pi 5", "tiny"),
        device=Device(86_400.5, 0.5, 0.25, 0.125, 10 << 30, 29 << 30, 123_456_789, 987_654),
        thermal=Thermal(
            celsius=61.5,
            target_celsius=75.0,
            zone_celsius={"cpu-thermal": 61.5, 'a "zone"\\': 40.0},
            fan_rpm=3200,
            processor_hertz=2.4e9,
            capped=False,
            throttled=True,
            soft_limit=False,
            capped_since_boot=False,
            throttled_since_boot=True,
            soft_limit_since_boot=False,
            duty_ratio=0.75,
            threads=2,
        ),
        power=Power(True, True, 7.25, 12_345.5),
        memory=Memory(
            size_bytes=4 << 30,
            available_bytes=2 << 30,
            swap_free_bytes=0,
            pressure_some_ratio=0.01,
            pressure_full_ratio=0.005,
            group_bytes=500 << 20,
            group_limit_bytes=800 << 20,
            group_available_bytes=300 << 20,
            group_oom_kills_total=1,
            daemon_bytes=50 << 20,
            engine_bytes=200 << 20,
            engine_mapped_bytes=100 << 20,
            engine_proportional_bytes=280 << 20,
            kv_cells=8192,
            kv_cells_used=512,
            prefix_cache_bytes=10 << 20,
            prefix_cache_limit_bytes=100 << 20,
            prefix_cache_entries=3,
        ),
        inference=Inference(
            engine="ready",
            engine_deaths_total=1,
            requests=Requests(3, 2, 1, 100, 90, 4, {"engine_crashed": 1}, {"busy": 7, "too_large": 1}),
            prompt_tokens_total=20_000,
            cached_tokens_total=5_000,
            answer_tokens_total=9_000,
            prompt_tokens_per_second=250.5,
            first_token_seconds=distribution(10, 60, 20),
            tokens_per_second=distribution(5, 5),
        ),
        mqtt=Mqtt("connected", 2, 1, 0, {"asks": 100, "refused": 8}, 3, 4096, 1 << 20, 1 << 24, 2, True),
        watch=Watch("warn", "distrusting", "stuck", ("undervoltage", "throttled")),
    )


def nothing() -> Snapshot:
    """Return a snapshot in which everything is null that may be."""
    told: Snapshot = _without(snapshot())
    return told


def _without(part: Any) -> Any:
    hints = get_type_hints(type(part))
    found = {field.name: getattr(part, field.name) for field in fields(part)}
    return replace(
        part,
        **{
            name: None if unwrapped(hints[name])[1] else _without(value) if is_dataclass(value) else value
            for name, value in found.items()
        },
    )

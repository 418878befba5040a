"""What is known of the device and the daemon at one moment, field by field.

These docstrings are the documentation: docs/telemetry.md, the JSON Schema, the names of the metrics and the
topics' fields are made of them. What is not known is None, never a made-up 0. A count of what has happened
ends in `_total`; it begins at 0 with the daemon unless its line says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from edged.core.status import Phase
from edged.engine.supervision.supervisor import State as EngineState
from edged.watch.thermal.governor import State as ThermalState
from edged.watch.thermal.trust import Fault

MemoryLevel = Literal["ok", "warn", "shed", "evict", "critical"]
LinkState = Literal["connecting", "connected", "waiting_for_time", "backing_off", "duplicate_id", "stopped"]


@dataclass(frozen=True, slots=True)
class Distribution:
    """How values were distributed.

    Attributes:
        count: how many there were.
        sum: all of them added up.
        p50: the value that half of them were not above, estimated from the buckets; null without values.
        p95: the same for 95 %.
        buckets: for each upper bound how many values were not above it.
    """

    count: int
    sum: float
    p50: float | None
    p95: float | None
    buckets: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Versions:
    """What runs.

    Attributes:
        edged: the daemon.
        python: the interpreter.
        library: of the engine, with its version; null while none is chosen.
        kernel: of the operating system.
        board: the device's model, as the firmware calls it; null where it says nothing.
        model: the language model in use; null without one.
    """

    edged: str
    python: str
    library: str | None
    kernel: str
    board: str | None
    model: str | None


@dataclass(frozen=True, slots=True)
class Device:
    """The machine.

    Attributes:
        uptime_seconds: since it was switched on.
        load1: processes that compute or wait for the disk, in the mean of a minute.
        load5: of five minutes.
        load15: of fifteen minutes.
        disk_free_bytes: what can be written to the file system of the state directory.
        disk_size_bytes: how large that is.
        network_received_bytes_total: over all interfaces but the loopback, since the boot.
        network_sent_bytes_total: the same of what was sent.
    """

    uptime_seconds: float | None
    load1: float | None
    load5: float | None
    load15: float | None
    disk_free_bytes: int | None
    disk_size_bytes: int | None
    network_received_bytes_total: int | None
    network_sent_bytes_total: int | None


@dataclass(frozen=True, slots=True)
class Thermal:
    """Heat, and what is done about it.

    Attributes:
        celsius: the processor's temperature, of its hottest zone.
        target_celsius: what it is kept below.
        zone_celsius: of every zone that the kernel shows, by its name; further ones of a name are numbered.
        fan_rpm: the fan's turns a minute.
        processor_hertz: the fastest core's frequency now.
        capped: the firmware caps the frequency.
        throttled: the firmware slows the processor down, for heat or for want of voltage.
        soft_limit: the firmware slows it down at its soft temperature limit.
        capped_since_boot: whether that was so at any time since the boot.
        throttled_since_boot: whether that was so at any time since the boot.
        soft_limit_since_boot: whether that was so at any time since the boot.
        duty_ratio: the share of the time in which the engine may compute.
        threads: that the engine may use for answers.
    """

    celsius: float | None
    target_celsius: float
    zone_celsius: Mapping[str, float] = field(metadata={"label": "zone"})
    fan_rpm: int | None
    processor_hertz: float | None
    capped: bool | None
    throttled: bool | None
    soft_limit: bool | None
    capped_since_boot: bool | None
    throttled_since_boot: bool | None
    soft_limit_since_boot: bool | None
    duty_ratio: float
    threads: int


@dataclass(frozen=True, slots=True)
class Power:
    """The supply.

    Attributes:
        under_voltage: the supply sags.
        under_voltage_since_boot: whether it did at any time since the boot.
        watts: what the device takes, where something measures it.
        energy_joules_total: taken since the daemon's start: by the processor's own meter, else reckoned
            from watts.
    """

    under_voltage: bool | None
    under_voltage_since_boot: bool | None
    watts: float | None
    energy_joules_total: float | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory, of the machine and of edged.

    Attributes:
        size_bytes: what the machine has.
        available_bytes: what can be taken before anything has to leave.
        swap_free_bytes: room for swapping out.
        pressure_some_ratio: the share of the last ten seconds in which a task waited for memory.
        pressure_full_ratio: that in which nothing got on.
        group_bytes: what edged's control group has taken.
        group_limit_bytes: the bound on it, or on a group around it, that is nearest.
        group_available_bytes: what can be taken until that bound.
        group_oom_kills_total: processes of the group killed for want of memory, since it was made.
        daemon_bytes: the daemon's resident memory.
        engine_bytes: the engine's own memory, which its end gives back.
        engine_mapped_bytes: pages of files in memory that the engine uses, its weights above all.
        engine_proportional_bytes: the engine's memory with shared pages divided among their users (PSS).
        kv_cells: tokens that the KV cache has room for.
        kv_cells_used: tokens of running requests in it.
        prefix_cache_bytes: states kept so that beginnings of prompts need not be computed again.
        prefix_cache_limit_bytes: what they may take.
        prefix_cache_entries: how many there are.
    """

    size_bytes: int | None
    available_bytes: int | None
    swap_free_bytes: int | None
    pressure_some_ratio: float | None
    pressure_full_ratio: float | None
    group_bytes: int | None
    group_limit_bytes: int | None
    group_available_bytes: int | None
    group_oom_kills_total: int | None
    daemon_bytes: int | None
    engine_bytes: int | None
    engine_mapped_bytes: int | None
    engine_proportional_bytes: int | None
    kv_cells: int | None
    kv_cells_used: int | None
    prefix_cache_bytes: int | None
    prefix_cache_limit_bytes: int | None
    prefix_cache_entries: int | None


@dataclass(frozen=True, slots=True)
class Requests:
    """Requests in hand, and what became of the others.

    Attributes:
        queued: that wait for their turn.
        running: that are computed.
        put_back: that have begun and wait to go on.
        accepted_total: let in.
        done_total: answered.
        cancelled_total: ended by their requesters.
        failed_total: let in and ended by an error, by its code.
        refused_total: not let in, by the error's code.
    """

    queued: int
    running: int
    put_back: int
    accepted_total: int
    done_total: int
    cancelled_total: int
    failed_total: Mapping[str, int] = field(metadata={"label": "code"})
    refused_total: Mapping[str, int] = field(metadata={"label": "code"})


@dataclass(frozen=True, slots=True)
class Inference:
    """The engine and its work.

    Attributes:
        engine: what the engine is doing.
        engine_deaths_total: how often it died.
        requests: in hand, and by outcome.
        prompt_tokens_total: of prompts that were answered.
        cached_tokens_total: those of them that had been computed before.
        answer_tokens_total: of answers, those under way too.
        prompt_tokens_per_second: how fast prompts are read, in the running mean; null until measured.
        first_token_seconds: from a request's arrival to the first token of its answer.
        tokens_per_second: how fast each answer came.
    """

    engine: EngineState
    engine_deaths_total: int
    requests: Requests
    prompt_tokens_total: int
    cached_tokens_total: int
    answer_tokens_total: int
    prompt_tokens_per_second: float | None
    first_token_seconds: Distribution
    tokens_per_second: Distribution


@dataclass(frozen=True, slots=True)
class Mqtt:
    """The way to the broker, and what waits for it.

    Attributes:
        link: how the connection stands.
        reconnects_total: connections after the first.
        in_flight: publications that the broker has yet to acknowledge.
        waiting: publications that wait for their turn.
        messages_total: what arrived, by what became of it: `asks` are all prompts, `refused`, `invalid` and
            `not_allowed` those of them answered with an error, `retained_dropped` those that the broker had
            kept, `unheard` those given up because nobody listened, `dropped` those lost for want of room.
        outbox: answers and events that the broker does not have yet.
        outbox_bytes: their size.
        journal_bytes: the journal's size on disk.
        journal_limit_bytes: what it may take.
        journal_asks: requests in it that are not answered.
        journal_can_write: whether the last write succeeded.
    """

    link: LinkState
    reconnects_total: int
    in_flight: int
    waiting: int
    messages_total: Mapping[str, int] = field(metadata={"label": "kind"})
    outbox: int | None
    outbox_bytes: int | None
    journal_bytes: int | None
    journal_limit_bytes: int | None
    journal_asks: int | None
    journal_can_write: bool | None


@dataclass(frozen=True, slots=True)
class Watch:
    """What the watches have decided.

    Attributes:
        memory_level: how short memory is.
        thermal_state: what is done about heat.
        thermometer_fault: why the thermometer is not believed; null while it is, or where there is none.
        alarms: those that are raised now.
    """

    memory_level: MemoryLevel | None
    thermal_state: ThermalState
    thermometer_fault: Fault | None
    alarms: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at everything.

    Attributes:
        device_id: which device.
        time: by the device's clock, in UTC.
        clock_synchronised: whether that clock is known to be right.
        phase: what the daemon is doing in one word.
        uptime_seconds: since the daemon's start.
        versions: what runs.
        device: the machine.
        thermal: heat.
        power: the supply.
        memory: memory.
        inference: the engine and its work.
        mqtt: the way to the broker; null where none is configured.
        watch: what the watches have decided.
    """

    device_id: str
    time: str
    clock_synchronised: bool
    phase: Phase
    uptime_seconds: float
    versions: Versions
    device: Device
    thermal: Thermal
    power: Power
    memory: Memory
    inference: Inference
    mqtt: Mqtt | None
    watch: Watch

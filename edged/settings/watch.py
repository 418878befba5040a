"""The tables of [watch]: when the device's means count as short, and what for."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field, model_validator

from edged.settings.types import Auto, Table

Left = Annotated[int, Field(ge=2**20, le=2**40)] | Auto


class LivenessTable(Table):
    """When a part that has something to do, and does not get on, counts as dead."""

    engine_seconds: Annotated[float, Field(ge=1, le=3600)] = Field(
        15, description="An engine that is silent this long is killed and started again."
    )
    daemon_seconds: Annotated[float, Field(ge=3, le=3600)] = Field(
        30,
        description="The connection with the broker is made anew when its thread stands still this long; the "
        "daemon is given up when its event loop does.",
    )
    journal_seconds: Annotated[float, Field(ge=3, le=3600)] = Field(
        120,
        description="The daemon is given up when one write to the journal takes longer; a card may need many "
        "seconds.",
    )


class MemoryTable(Table):
    """When memory counts as short; the defaults fit 512 MB to 8 GB."""

    warn_bytes: Left = Field(
        "auto",
        description="With less left, beside the weights in use, kept states are dropped; auto: by memory.",
    )
    shed_bytes: Left = Field(
        "auto", description="With less left, requests are admitted one at a time; auto: by the memory."
    )
    evict_bytes: Left = Field(
        "auto", description="With less available, the model leaves memory; auto: by the memory."
    )
    critical_bytes: Left = Field(
        "auto",
        description="With less available, though the model has left, the daemon ends and is started again; "
        "auto: by the memory.",
    )
    shed_pressure_percent: Annotated[float, Field(ge=1, le=100)] = Field(
        10, description="Requests are admitted one at a time when nothing got on for this share of the time."
    )
    evict_pressure_percent: Annotated[float, Field(ge=1, le=100)] = Field(
        40, description="The model leaves memory when nothing got on for this share of the time."
    )
    major_faults_per_second: Annotated[float, Field(ge=1, le=1_000_000)] = Field(
        50,
        description="While memory is short: requests are admitted one at a time when the engine waits for "
        "this many pages to be read, and the model leaves memory at four times as many.",
    )
    engine_growth_bytes: Annotated[int, Field(ge=2**20, le=2**40)] = Field(
        2**26, description="An engine at rest that has grown by more is started anew."
    )

    @model_validator(mode="after")
    def _in_order(self) -> MemoryTable:
        names = ("critical_bytes", "evict_bytes", "shed_bytes", "warn_bytes")
        given = [(name, value) for name in names if (value := getattr(self, name)) != "auto"]
        for (lower, less), (higher, more) in pairwise(given):
            if less > more:
                raise ValueError(f"watch.memory.{lower} = {less} is more than watch.memory.{higher} = {more}")
        if self.shed_pressure_percent > self.evict_pressure_percent:
            raise ValueError(
                f"watch.memory.shed_pressure_percent = {self.shed_pressure_percent:g} is more than "
                f"watch.memory.evict_pressure_percent = {self.evict_pressure_percent:g}"
            )
        return self


class ThermalTable(Table):
    """How warm the processor may get, and how much energy computing may take."""

    target_celsius: Annotated[float, Field(ge=40, le=85)] | Auto = Field(
        "auto",
        description="The engine computes less where the processor would get warmer; auto: 75, or 5 below the "
        "kernel's first passive trip, or 3 below the firmware's soft limit, whichever is the least.",
    )
    most_duty: Annotated[float, Field(ge=0.01, le=1)] = Field(
        1, description="The share of full work that computing may come to, in the mean of ten minutes."
    )
    mean_watts: Annotated[float, Field(ge=0.1, le=1000)] | None = Field(
        None,
        description="Power that the device may take, in the mean of ten minutes; none: all it needs.",
        examples=[5.0],
    )
    rest_watts: Annotated[float, Field(ge=0, le=1000)] = Field(
        3, description="Power that the device takes at rest; mean_watts is reckoned with it."
    )
    full_watts: Annotated[float, Field(ge=0.1, le=1000)] = Field(
        8, description="Power that it takes while it computes; mean_watts is reckoned with it."
    )

    @model_validator(mode="after")
    def _in_order(self) -> ThermalTable:
        mean = self.full_watts if self.mean_watts is None else self.mean_watts
        if not self.rest_watts < mean <= self.full_watts:
            raise ValueError(
                f"watch.thermal.mean_watts = {mean:g} is not above watch.thermal.rest_watts = "
                f"{self.rest_watts:g} and at most watch.thermal.full_watts = {self.full_watts:g}"
            )
        return self


class WatchTable(Table):
    """What is watched over."""

    liveness: LivenessTable = Field(default_factory=LivenessTable)
    memory: MemoryTable = Field(default_factory=MemoryTable)
    thermal: ThermalTable = Field(default_factory=ThermalTable)

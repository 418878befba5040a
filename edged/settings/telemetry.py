"""The table [telemetry]: how often the device tells of itself, and to whom."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edged.settings.types import Table


class TelemetryTable(Table):
    """What the device tells of itself."""

    interval_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        60, description="How often health and telemetry are published over MQTT."
    )
    alarm_hold_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        30, description="How long a reason must last before an alarm is raised or cleared."
    )
    history_hours: Annotated[int, Field(ge=0, le=168)] = Field(
        24, description="How many hours of history are kept on disk, about 16 kB each; 0: none."
    )
    prometheus: bool = Field(True, description="Serve /metrics over HTTP, for Prometheus.")
    homeassistant: bool = Field(
        False,
        description="Announce the device to Home Assistant at the broker, and publish last_answer for it.",
    )

"""What is known of heat and power at one moment, and the limits of the machine. What is not known is None."""

from __future__ import annotations

from dataclasses import dataclass

MOST_TARGET = 75.0
"""Degrees: the warmest target that is chosen unasked; at 80 a Pi's firmware begins to throttle."""
_BELOW_PASSIVE = 5.0  # the kernel slows the processor down at its first passive trip
_BELOW_SOFT_LIMIT = 3.0  # the firmware does so at its soft limit


@dataclass(frozen=True, slots=True)
class Flags:
    """What a Raspberry Pi's firmware says, of now and of the time since the boot.

    Attributes:
        under_voltage: the supply sags.
        capped: the frequency is capped.
        throttled: the processor is slowed down, for heat or for want of voltage.
        soft_limit: it is slowed down for heat.
        seen: which of them have been true since the boot.
    """

    under_voltage: bool = False
    capped: bool = False
    throttled: bool = False
    soft_limit: bool = False
    seen: frozenset[str] = frozenset()


NO_FLAGS = Flags()


@dataclass(frozen=True, slots=True)
class ThermalReading:
    """One look at the sensors.

    Attributes:
        celsius: the processor's temperature.
        flags: the firmware's; None where there is none that tells.
        megahertz: the processor's frequency as the kernel sees it.
        fan_rpm: the fan's speed.
        watts: what the device takes, where something measures it.
    """

    celsius: float | None = None
    flags: Flags | None = None
    megahertz: float | None = None
    fan_rpm: int | None = None
    watts: float | None = None


@dataclass(frozen=True, slots=True)
class ThermalLimits:
    """Where others than edged begin to slow the processor down, in degrees Celsius.

    Attributes:
        passive: the kernel's first passive trip.
        soft_limit: the firmware's.
    """

    passive: float | None = None
    soft_limit: float | None = None

    @property
    def target(self) -> float:
        """The temperature to keep below where the configuration names none."""
        return min(
            MOST_TARGET,
            self.passive - _BELOW_PASSIVE if self.passive is not None else MOST_TARGET,
            self.soft_limit - _BELOW_SOFT_LIMIT if self.soft_limit is not None else MOST_TARGET,
        )

"""Heat as the sensors tell it, where nothing is governed."""

from __future__ import annotations

from pathlib import Path

from edged.watch.thermal.reading import ThermalReading
from edged.watch.thermal.sensors import ThermalSensors


class Thermometer:
    """Looks at the sensors whenever it is asked.

    Attributes:
        decision: none is made.
        target: none is kept.

    Args:
        root: where /proc and /sys are found.
    """

    decision = None
    target = None

    def __init__(self, root: Path = Path("/")) -> None:
        self._sensors = ThermalSensors(root)

    @property
    def reading(self) -> ThermalReading:
        """What the sensors say now."""
        return self._sensors.read()

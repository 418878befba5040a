"""Two bodies that get warm, chip and board: a Raspberry Pi 4 and 5, each with and without a fan.

Temperatures are counted above the air's. The chip takes the power that computing adds to rest and gives it to
the board, and the board gives it to the air; `rest` says how much warmer both are when nothing computes.

Where the figures come from (a bracket says what is fitted or assumed, not measured):

- Pi 4: `chip_*` and `board_*` are fitted to the published log of `stress -c 4` on a Pi 4 at 1.5 GHz, a look
  every ten seconds for 260 s (pastebin.com/9zGtFR1e; the residual is 0.64 degrees), with [3.2 W] for the four
  cores: idle 2.3 W, high load 5.1 to 5.4 W (chipwired.com/raspberry-pi-power-use). Rest: 27 degrees above the
  air by thermocouple with the first firmware (pi-plates.com, "Using a THERMOplate"), [25] with a later one.
- Pi 4 with a fan: [fitted] to a Fan SHIM's chart, which holds a loaded Pi 4 at about 50 degrees
  (blog.pimoroni.com/raspberry-pi-4-thermals-and-fan-shim).
- Pi 5 without a cooler: about 50 degrees at rest, 80 within a few minutes of load at 22 (pidiylab.com and
  beamostore.com, guides to cooling); average 81 and peak 89 in benchmarks (phoronix.com, Raspberry Pi 5
  review). [The resistances are fitted to these, the heat capacities are the Pi 4's.]
- Pi 5 with the Active Cooler: average 56, peak 72 in the same review. [Fitted likewise.]
- Power by threads: [a share for caches and memory and the same for every core; a Pi 5 comes to 6.8 W above
  rest with four.]
- Speed: a Pi 5 decodes 32.4, 33.8, 29.4 and 27.3 tokens/s with 1 to 4 threads and a Pi 4 9.8 with four
  (Qwen2.5-0.5B Q4_0, llama-bench). [The Pi 4's by threads are assumed: n to the power of 0.8.]
"""

from __future__ import annotations

from dataclasses import dataclass

FIRMWARE_BEGINS, FIRMWARE_ENDS = 80.0, 85.0
"""Degrees between which a Pi's firmware lowers the clock step by step (its documentation)."""
_LEAST_CLOCK = 0.4  # 600 of 1500 MHz


@dataclass(frozen=True, slots=True)
class Device:
    """A board.

    Attributes:
        name: what it is called.
        chip_rest: degrees that the chip is above the air at rest.
        chip_resistance: degrees a watt from chip to board.
        chip_capacity: joules a degree.
        board_resistance: degrees a watt from board to air.
        board_capacity: joules a degree.
        shared_watts: above rest, with any number of busy threads.
        thread_watts: above that, for each of them.
        speeds: tokens a second by threads.
        memory_bound: whether its processor is fast enough for that.
        sensor_step: degrees between two values of its thermometer.
    """

    name: str
    chip_rest: float
    chip_resistance: float
    chip_capacity: float
    board_resistance: float
    board_capacity: float
    shared_watts: float
    thread_watts: float
    speeds: tuple[float, ...]
    memory_bound: bool
    sensor_step: float

    def watts(self, threads: int) -> float:
        """Return what so many busy threads add to rest."""
        return self.shared_watts + self.thread_watts * threads

    def settled(self, air: float, watts: float) -> float:
        """Return the chip's temperature after so long at a power that nothing changes any more."""
        return air + self.chip_rest + watts * (self.chip_resistance + self.board_resistance)

    def bearable(self, air: float, target: float) -> float:
        """Return the watts above rest at which it settles at a temperature."""
        return (target - self.settled(air, 0)) / (self.chip_resistance + self.board_resistance)

    def best_constant(self, air: float, target: float) -> float:
        """Return the most tokens a second of any constant threads and duty that keep to the target."""
        return max(
            speed
            * min(
                1.0,
                max(0.0, (target - self.settled(air, 0)) / (self.settled(0, self.watts(n)) - self.chip_rest)),
            )
            for n, speed in enumerate(self.speeds, 1)
        )


_PI4_SPEEDS = tuple(9.8 * (n / 4) ** 0.8 for n in range(1, 5))
_PI5_SPEEDS = (32.4, 33.8, 29.4, 27.3)
PI4 = Device("Pi 4", 25, 3.3, 1.2, 5.0, 20, 0.6, 0.65, _PI4_SPEEDS, False, 0.487)
PI4_FAN = Device("Pi 4 with a fan", 12, 3.3, 1.2, 2.3, 20, 0.6, 0.65, _PI4_SPEEDS, False, 0.487)
PI5 = Device("Pi 5", 28, 2.6, 1.2, 5.5, 27, 1.2, 1.4, _PI5_SPEEDS, True, 0.55)
PI5_COOLER = Device("Pi 5 with a cooler", 18, 1.8, 1.5, 2.0, 50, 1.2, 1.4, _PI5_SPEEDS, True, 0.55)
DEVICES = (PI4, PI4_FAN, PI5, PI5_COOLER)


class Board:
    """A device at work.

    Attributes:
        chip: the chip's temperature.

    Args:
        device: which.
        air: the temperature of what is around it; it has rested in it for long.
    """

    def __init__(self, device: Device, air: float) -> None:
        self._device = device
        self._chip = self._board = 0.0  # above their temperatures at rest
        self._still_air = air  # what the board has come to feel
        self.air = air

    @property
    def chip(self) -> float:
        """Return the chip's temperature."""
        return self._still_air + self._device.chip_rest + self._chip

    def heat(self, watts: float, seconds: float) -> None:
        """Let some time pass at a power above rest."""
        device = self._device
        flow = (self._chip - self._board) / device.chip_resistance
        self._chip += seconds * (watts - flow) / device.chip_capacity
        loss = self._board / device.board_resistance
        self._board += seconds * (flow - loss) / device.board_capacity
        rate = seconds / (device.board_capacity * device.board_resistance)
        self._still_air += (self.air - self._still_air) * rate


def firmware_clock(celsius: float) -> float:
    """Return the clock that the firmware leaves at a temperature, as a share of the full one."""
    share = (celsius - FIRMWARE_BEGINS) / (FIRMWARE_ENDS - FIRMWARE_BEGINS)
    return 1.0 - (1.0 - _LEAST_CLOCK) * min(1.0, max(0.0, share))

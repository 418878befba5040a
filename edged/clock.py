"""Time on a device whose clock can't be trusted: stamps that outlive a process, and how long ago they were.

A Raspberry Pi boots in the past and jumps when its time is synchronised. Within a boot the time since the
boot decides; across boots the wall clock counts only where it was known to be right on both sides.
"""

from __future__ import annotations

import ctypes
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_SYNCHRONISED = "run/systemd/timesync/synchronized"
_BOOT_ID = "proc/sys/kernel/random/boot_id"
_STA_UNSYNC = 0x40  # the status bit of adjtimex: the kernel's clock is not disciplined


@dataclass(frozen=True, slots=True)
class Stamp:
    """A moment, as far as the device knows it.

    Attributes:
        boot_id: tells one boot of the machine from another.
        boottime: seconds since that boot, time asleep included.
        wall: unix time, right or wrong.
        synchronised: whether the wall clock was known to be right.
    """

    boot_id: str
    boottime: float
    wall: float
    synchronised: bool

    def as_fields(self) -> dict[str, Any]:
        """Return the stamp for JSON."""
        return {
            "boot_id": self.boot_id,
            "boottime": self.boottime,
            "wall": self.wall,
            "synchronised": self.synchronised,
        }


def elapsed(since: Stamp, now: Stamp) -> float:
    """Return the seconds that have certainly passed between two stamps; never less than 0.

    Within one boot that is the time by its own clock. Across boots the time switched off counts only
    where both stamps were synchronised; otherwise the time since the present boot is all that is certain.
    """
    if since.boot_id == now.boot_id:
        return max(0.0, now.boottime - since.boottime)
    if since.synchronised and now.synchronised:
        return max(now.wall - since.wall, now.boottime, 0.0)
    return max(0.0, now.boottime)


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class _Timex(ctypes.Structure):
    """The beginning of the kernel's struct timex, and more room than the rest of it needs."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 512),
    )


def _kernel_synchronised() -> bool:
    """Ask the kernel whether its clock is disciplined; a sandbox that forbids to ask means no."""
    try:
        adjtimex = ctypes.CDLL(None).adjtimex
    except (OSError, AttributeError):
        return False
    timex = _Timex()
    return adjtimex(ctypes.byref(timex)) >= 0 and not timex.status & _STA_UNSYNC


class Clock:
    """The device's clocks.

    Args:
        root: where /proc and /run are found.
        wall: gives unix time.
        boottime: gives the seconds since the boot, time asleep included.
        kernel_synchronised: says whether the kernel's clock is disciplined.
    """

    def __init__(
        self,
        root: Path = Path("/"),
        *,
        wall: Callable[[], float] = time.time,
        boottime: Callable[[], float] = _boottime,
        kernel_synchronised: Callable[[], bool] = _kernel_synchronised,
    ) -> None:
        self._mark = root / _SYNCHRONISED
        self._wall = wall
        self._boottime = boottime
        self._kernel_synchronised = kernel_synchronised
        try:
            self._boot_id = (root / _BOOT_ID).read_text().strip()
        except (OSError, UnicodeDecodeError):
            self._boot_id = ""
        if not self._boot_id:
            self._boot_id = f"unknown-{uuid.uuid4()}"  # then every start counts as another boot

    @property
    def synchronised(self) -> bool:
        """Say whether the wall clock is known to be right; False where that can't be found out."""
        try:
            return self._mark.exists() or self._kernel_synchronised()
        except OSError:
            return False

    def now(self) -> Stamp:
        """Return this moment."""
        return Stamp(self._boot_id, self._boottime(), self._wall(), self.synchronised)

    def fields(self) -> dict[str, Any]:
        """Return what every published time stamp carries: `time` and `clock_synchronised`."""
        time_text = datetime.fromtimestamp(self._wall(), UTC).isoformat(timespec="milliseconds")
        return {"time": time_text.replace("+00:00", "Z"), "clock_synchronised": self.synchronised}

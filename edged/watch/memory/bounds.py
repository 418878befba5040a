"""The levels of memory, and how much must be left for each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from edged.settings.watch import MemoryTable

_MIB = 1 << 20
_SHARE = 0.03  # of the memory: the floor, and half the way from there to the first warning
_LEAST_FLOOR, _MOST_STEP = 12 * _MIB, 128 * _MIB
_LEAST_STEP = 24 * _MIB
"""More than is lost between two readings a tenth of a second apart, at 200 MB/s."""


class Level(IntEnum):
    """How short memory is."""

    OK = 0
    WARN = 1
    SHED = 2
    EVICT = 3
    CRITICAL = 4

    @property
    def label(self) -> str:
        """Return the name that status, events and documents use."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Bounds:
    """A level is entered when less than its bytes are left, and left when `margin` more are."""

    warn: int
    shed: int
    evict: int
    critical: int

    @property
    def margin(self) -> int:
        """Return how much more must be left to leave a level than to enter it."""
        return max(4 * _MIB, (self.warn - self.critical) // 4)

    @classmethod
    def of(cls, total: int) -> Bounds:
        """Return those for so much memory, or so large a limit."""
        share = int(total * _SHARE)
        floor = min(max(share, _LEAST_FLOOR), _MOST_STEP)
        step = min(max(share, _LEAST_STEP), _MOST_STEP)
        return cls(floor + 2 * step, floor + step * 3 // 2, floor + step, floor)

    @classmethod
    def configured(cls, table: MemoryTable, total: int) -> Bounds:
        """Return those of the settings; what is left to edged gives way to what is not."""
        auto = cls.of(total)
        wanted = (table.critical_bytes, table.evict_bytes, table.shed_bytes, table.warn_bytes)
        found: list[int] = []
        for level, default in enumerate((auto.critical, auto.evict, auto.shed, auto.warn)):
            given = wanted[level]
            above = [one for one in wanted[level + 1 :] if one != "auto"]
            value = min([default, *above]) if given == "auto" else given
            found.append(max([value, *found[-1:]]))
        critical, evict, shed, warn = found
        return cls(warn, shed, evict, critical)

    def level(self, available: int, spare: int, *, to_leave: bool) -> Level:
        """Return the level for what is left.

        Args:
            available: bytes that can be taken at all.
            spare: those without what the engine needs back at once.
            to_leave: whether this is about leaving the level, for which more must be left.
        """
        more = self.margin if to_leave else 0
        if available < self.critical + more:
            return Level.CRITICAL
        if available < self.evict + more:
            return Level.EVICT
        if spare < self.shed + more:
            return Level.SHED
        return Level.WARN if spare < self.warn + more else Level.OK

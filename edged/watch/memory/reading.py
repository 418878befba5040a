"""What is known of memory at one moment. All amounts are bytes; what is not known is None."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """The whole machine.

    Attributes:
        total: memory that there is.
        available: what can be taken before anything has to leave, clean pages of files included.
        swap_free: room for swapping out, of any kind.
        disk_swap_free: that of it which is no compressed memory.
    """

    total: int
    available: int
    swap_free: int = 0
    disk_swap_free: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """The daemon's control group, and those around it.

    Attributes:
        current: what the own group has taken.
        high: above it the group is slowed down; None: no such bound.
        max: above it the kernel kills; None: no such bound.
        swap: what of it is swapped out.
        limit: the bound that is nearest to being reached, of this group or one around it; None: there is
            none.
        available: what can be taken until then, pages of files that the kernel can take back included.
        spare: the same without those of them that are in use.
        oom_kills: processes of the group that the kernel has killed for want of memory.
    """

    current: int
    high: int | None = None
    max: int | None = None
    swap: int | None = None
    limit: int | None = None
    available: int | None = None
    spare: int | None = None
    oom_kills: int = 0


@dataclass(frozen=True, slots=True)
class Pressure:
    """The share of the last ten seconds, in percent, in which memory was waited for.

    Attributes:
        some: at least one task waited.
        full: nothing got on.
    """

    some: float
    full: float


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """The engine's process.

    Attributes:
        pid: the process.
        anonymous: what its end gives back.
        mapped: pages of files, the weights above all, that it has in memory; they count as available too.
        swapped: what of it is swapped out.
        major_faults: how often it has waited for a page to be read, since it began.
    """

    pid: int
    anonymous: int
    mapped: int = 0
    swapped: int = 0
    major_faults: int = 0


@dataclass(frozen=True, slots=True)
class Zram:
    """Swap in compressed memory: what is stored there, and what that takes."""

    stored: int
    used: int


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """All of it; only the machine is always known."""

    machine: Machine
    group: Group | None = None
    machine_pressure: Pressure | None = None
    group_pressure: Pressure | None = None
    engine: EngineMemory | None = None
    zram: Zram | None = None

    @property
    def total(self) -> int:
        """What there is, or what the control group may take of it."""
        limit = self.group.limit if self.group else None
        return self.machine.total if limit is None else min(self.machine.total, limit)

    @property
    def anonymous(self) -> int:
        """What the engine's end would give back."""
        return self.engine.anonymous if self.engine else 0

    @property
    def spare(self) -> int:
        """What the machine has available without taking pages back that the engine uses."""
        return self.machine.available - (self.engine.mapped if self.engine else 0)

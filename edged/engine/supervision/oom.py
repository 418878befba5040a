"""Memory as the kernel counts it: how much there is, and whom it has killed for want of it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Literal, NamedTuple

import psutil

Cause = Literal["machine", "limit"]
"""What was too small: the machine's memory, or the limit of the daemon's control group."""


class Memory(NamedTuple):
    """Bytes of memory that the daemon and its engine may use: in all, and still free to take."""

    total: int
    available: int


class OomKills(NamedTuple):
    """Counts since boot, or since the control group was made; 0 where the kernel doesn't say.

    Attributes:
        machine: processes that were killed for want of memory.
        own: those of the daemon's control group.
        limit: how often its own limit was the cause.
    """

    machine: int
    own: int
    limit: int

    def cause_since(self, before: OomKills) -> Cause | None:
        """Return what was too small if a process was killed for want of memory since then."""
        if self.limit > before.limit and self.own > before.own:
            return "limit"
        return "machine" if self.machine > before.machine or self.own > before.own else None


def oom_kills(root: Path = Path("/")) -> OomKills:
    """Return the kernel's counts of processes killed for want of memory."""
    machine = _counts(root / "proc/vmstat")
    own = _counts(group / "memory.events") if (group := _control_group(root)) else {}
    return OomKills(machine.get("oom_kill", 0), own.get("oom_kill", 0), own.get("oom", 0))


def memory(root: Path = Path("/")) -> Memory:
    """Return the memory of the machine, or of the daemon's control group where its limit is nearer."""
    machine = psutil.virtual_memory()
    found = Memory(machine.total, machine.available)
    if group := _control_group(root):
        with contextlib.suppress(OSError, ValueError):  # no limit reads "max"
            limit = int((group / "memory.max").read_text())
            used = int((group / "memory.current").read_text())
            files = _counts(group / "memory.stat")
            reclaimable = files.get("inactive_file", 0) + files.get("active_file", 0)
            left = max(0, limit - used + reclaimable)
            return Memory(min(found.total, limit), min(found.available, left))
    return found


def _control_group(root: Path) -> Path | None:
    """Return the directory of the daemon's own control group (version 2)."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            if line.startswith("0::/"):
                return root / "sys/fs/cgroup" / line.removeprefix("0::/")
    return None


def _counts(path: Path) -> dict[str, int]:
    """Return a file of lines `name count`; empty if it can't be read."""
    try:
        lines = [line.split() for line in path.read_text().splitlines()]
        return {line[0]: int(line[1]) for line in lines}
    except (OSError, ValueError, IndexError):
        return {}
